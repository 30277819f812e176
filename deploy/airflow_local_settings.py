"""Read by every Airflow process at its start: lets a Celery worker import once what its tasks need, before it forks for them.

Without it each task imports for ten seconds and more. A LocalExecutor does the same by its own setting (see
`evergreen.stack.variables.PRELOADED`), and every other process needs none of it.
"""

import sys

if sys.argv[1:3] == ["celery", "worker"]:
    import evergreen_airflow.preload  # noqa: F401
