"""A full disk is told as one, whoever meets it."""

from __future__ import annotations

import errno
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError, TransientError, may_pass
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow
from evergreen.warehouse.storage.full_disk import is_full, room


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), True, id="operating-system"),
        pytest.param(OSError(errno.EDQUOT, "Disk quota exceeded"), True, id="quota"),
        pytest.param(
            ValueError("[Errno 28] Error writing bytes. Detail: No space left on device"), True, id="in-words"
        ),
        pytest.param(caused(RuntimeError("cannot write"), OSError(errno.ENOSPC, "x")), True, id="as-a-cause"),
        pytest.param(OSError(errno.EACCES, "Permission denied"), False, id="another-error"),
        pytest.param(ValueError("no rows"), False, id="no-disk-at-all"),
    ],
)
def test_which_errors_are_a_full_disk(error, full, tmp_path):
    assert is_full(error) is full
    kind = TransientError if full else type(error)
    with pytest.raises(kind) as caught, room("writing", tmp_path / "not" / "yet", lambda: 3_000_000):
        raise error
    if full:
        assert caught.value.reason is ErrorReason.NO_SPACE
        assert may_pass(caught.value)
        for told in ("writing: no space left", str(tmp_path), "free", "about 3 MB"):
            assert told in str(caught.value)


def test_a_full_disk_that_was_taken_for_something_else_is_told_as_one(tmp_path: Path):
    wrong = caused(
        TerminalError("MLflow does not answer", ErrorReason.UNREACHABLE), OSError(errno.ENOSPC, "x")
    )
    with pytest.raises(TransientError, match="no space left"), room("writing", tmp_path):
        raise wrong


def test_a_full_disk_of_the_server(warehouse_url):
    """PostgreSQL's own error, raised by itself."""
    told = "disk of the warehouse's server"
    with pytest.raises(TransientError, match=told) as caught, connect() as conn, conn.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$")
    assert caught.value.reason is ErrorReason.NO_SPACE
    assert isinstance(caught.value.__cause__, psycopg2.errors.DiskFull)


def test_a_full_disk_of_the_server_met_by_a_reader(warehouse_url):
    """As when a query sorts on the disk: the driver's error is another class than psycopg2's."""
    with psycopg2.connect(warehouse_url) as conn, conn.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION fills() RETURNS bigint LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'could not write to file' USING ERRCODE = '53100'; END $$"
        )
    told = "no space left on the disk of the warehouse's server"
    with arrow.reading() as reader, pytest.raises(TransientError, match=told) as caught:
        reader.rows(sql.SQL("SELECT fills() AS n"))
    assert caught.value.reason is ErrorReason.NO_SPACE
    assert "could not write to file" in str(caught.value)
