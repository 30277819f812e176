from evergreen_airflow.dags import ingest

globals().update(ingest.dags(__file__))
