from evergreen_airflow.dags import rollback

globals().update(rollback.dags(__file__))
