"""The embedded stack: PostgreSQL, MLflow, Airflow, the prediction service and a mail catcher for one machine, without Docker.

`evergreen up` (or `make up`) and the like for people; `control` for programs. Nothing is imported here: what looks whether there is a
stack needs nothing of it.
"""
