from evergreen_airflow.dags import correct

globals().update(correct.dags(__file__))
