"""Evergreen on a server: what docker-compose.yaml runs beside Airflow's own commands."""
