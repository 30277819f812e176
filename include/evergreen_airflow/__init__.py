"""Evergreen on Apache Airflow: DAGs of the specs, the plugin, and how what runs there finds the warehouse and sends mail.

The only place that imports Airflow; the library `evergreen` knows nothing of it. A team's DAG folder holds one thin file for each
kind of DAG, which `evergreen init` writes.
"""
