from evergreen_airflow.dags import promote

globals().update(promote.dags(__file__))
