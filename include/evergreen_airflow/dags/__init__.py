"""The DAGs, a module for each kind; its docstring is the page of the DAG in Airflow.

A file in the DAG folder makes those of one kind: `globals().update(train.dags(__file__))`.
"""
