"""Does PostgreSQL, which applies them, understand the patterns of a dataset's expectations?"""

from __future__ import annotations

import psycopg2

from evergreen.spec import DatasetSpec, Problem
from evergreen.warehouse.connection import Connection


def pattern_problems(conn: Connection, dataset: DatasetSpec) -> list[Problem]:
    """Patterns that PostgreSQL, which applies them, does not understand."""
    found = []
    for index, item in enumerate(dataset.expectations):
        for name in ("regex", "regex_list"):
            given = item.kwargs.get(name)
            for pattern in given if isinstance(given, list) else [given]:
                if not isinstance(pattern, str):
                    continue
                with conn.cursor() as cursor:
                    cursor.execute("SAVEPOINT evergreen_pattern")
                    try:
                        cursor.execute("SELECT '' ~ %s", (pattern,))
                    except psycopg2.Error as error:
                        said = f"no pattern that PostgreSQL reads ({error.diag.message_primary}); mend it"
                        found.append(_problem(dataset, f"expectations.{index}.kwargs.{name}", pattern, said))
                    finally:
                        cursor.execute("ROLLBACK TO SAVEPOINT evergreen_pattern")
    return found


def _problem(dataset: DatasetSpec, field: str, value: str, said: str) -> Problem:
    return Problem(f"datasets/{dataset.name}.yaml", field, value, said)
