from evergreen_airflow.dags import digest

globals().update(digest.dags(__file__))
