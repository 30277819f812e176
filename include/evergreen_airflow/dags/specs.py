"""Makes a bad spec, or a bad variable of the environment, visible: its problems become this file's import error, which the UI shows on every page.

The DAGs of a bad spec are not built; all others are, from their own files. There is no DAG of this kind.
"""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from evergreen_airflow.project import Project


def dags(dag_file: str) -> dict[str, DAG]:
    """Nothing, where all specs beside a DAG file can be used.

    Raises:
        ValueError: some cannot, or a variable of the environment.
    """
    problems = (
        Project(dag_file).specs_and_environment().problems if get_parsing_context().dag_id is None else ()
    )
    if problems:
        raise ValueError(
            "some specs are unusable, and their DAGs are switched off (a variable of the environment: its default is used):\n"
            + "\n".join(str(p) for p in problems)
        )
    return {}
