from evergreen_airflow.dags import mail

globals().update(mail.dags(__file__))
