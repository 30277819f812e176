from evergreen_airflow.dags import specs

globals().update(specs.dags(__file__))
