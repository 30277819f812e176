"""Pages of the health of models inside Airflow: a FastAPI app with server-made pages, behind Airflow's login and its rights on DAGs."""
