from evergreen_airflow.dags import train

globals().update(train.dags(__file__))
