from evergreen_airflow.dags import replay

globals().update(replay.dags(__file__))
