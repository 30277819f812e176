from evergreen_airflow.dags import silence

globals().update(silence.dags(__file__))
