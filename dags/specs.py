"""Makes a bad spec, or a bad variable of the environment, visible: its problems become this file's import error, which the UI shows on every page.

The DAGs of a bad spec are not built; all others are, from their own files. There is no DAG in this file.
"""

from __future__ import annotations

from airflow.sdk import get_parsing_context

import wiring

_problems = wiring.specs_and_environment().problems if get_parsing_context().dag_id is None else ()
if _problems:
    raise ValueError(
        "some specs are unusable, and their DAGs are switched off (a variable of the environment: its default is used):\n"
        + "\n".join(str(p) for p in _problems)
    )
