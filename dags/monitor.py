from evergreen_airflow.dags import monitor

globals().update(monitor.dags(__file__))
