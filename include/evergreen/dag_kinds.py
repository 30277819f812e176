"""The kinds of DAG: a DAG is named KIND__NAME after its dataset or model, or by its kind alone where it is of the whole fleet."""

from __future__ import annotations

OF_DATASETS = ("ingest", "correct")
OF_MODELS = ("train", "promote", "score", "monitor", "rollback", "replay")
SHARED = ("mail", "digest", "silence")
PROBLEMS = "specs"
"""The file in a DAG folder that shows what is wrong with the specs; it makes no DAG."""

FILES = (*OF_DATASETS, *OF_MODELS, *SHARED, PROBLEMS)
"""What a DAG folder has a file for."""
