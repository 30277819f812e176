from evergreen_airflow.dags import score

globals().update(score.dags(__file__))
