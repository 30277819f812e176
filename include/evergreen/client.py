"""A client of the prediction service: `Client().predict("bike_demand", {"temperature": 21.5, ...})`.

It needs nothing of Evergreen but this file and `requests`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import requests

URL, KEY = "EVERGREEN_SERVING_URL", "EVERGREEN_SERVING_KEY"
DEFAULT_URL = "http://127.0.0.1:8088"
MOST_RECORDS = 1000
"""That the service answers at once; more are asked for in parts."""

Record = Mapping[str, Any]


class RefusedError(Exception):
    """The service does not answer with predictions.

    Attributes:
        status: of HTTP; 0: it does not answer at all.
        problems: what is wrong with which field of which record, all of it: `record` (counted from 0 in what was asked), `field`, `problem`.
    """

    def __init__(self, status: int, error: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        told = "".join(f"\n  record {p['record']}, {p['field']}: {p['problem']}" for p in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        super().__init__(f"{error}{told}{more}")
        self.status, self.problems = status, list(problems)


class Client:
    """Asks one service; for one thread at a time."""

    def __init__(self, url: str | None = None, key: str | None = None, *, timeout_s: float = 10.0) -> None:
        """Name the service and the client's key.

        Args:
            url: default: EVERGREEN_SERVING_URL, else that of this machine's own service.
            key: default: EVERGREEN_SERVING_KEY, else the one of this machine's own service, where it lies in EVERGREEN_HOME.
            timeout_s: longest that an answer may take.
        """
        self.url = (url or os.environ.get(URL) or _local("url") or DEFAULT_URL).rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["Authorization"] = (
            f"Bearer {key or os.environ.get(KEY) or _local('local.key') or ''}"
        )

    def predict(self, model: str, records: Record | Sequence[Record]) -> Any:
        """Predictions of a record (a number) or of several (a list of numbers): the label's unit, or the probability of class 1.

        Args:
            model: its name.
            records: by the features' names.

        Raises:
            RefusedError: with everything that is wrong.
        """
        return self._predictions(model, "record", records)

    def predict_keys(self, model: str, keys: Record | Sequence[Record]) -> Any:
        """The same for rows that the warehouse has, by their keys.

        Raises:
            RefusedError: with everything that is wrong.
        """
        return self._predictions(model, "key", keys)

    def explain(self, model: str, record: Record) -> dict[str, Any]:
        """What each feature adds to a prediction.

        Raises:
            RefusedError: with everything that is wrong.
        """
        return cast(dict[str, Any], self.ask(model, "explain", {"record": record})["explanation"])

    def models(self) -> list[dict[str, Any]]:
        """What is served.

        Raises:
            RefusedError: the service does not answer.
        """
        return cast(list[dict[str, Any]], self._send("GET", "/models", None)["models"])

    def about(self, model: str) -> dict[str, Any]:
        """What a model is, and what a record of it looks like (`record`, a JSON Schema).

        Raises:
            RefusedError: it is not served, or the service does not answer.
        """
        return self._send("GET", f"/models/{quote(model, safe='')}", None)

    def ask(self, model: str, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request as it is, and return the whole answer.

        Raises:
            RefusedError: with everything that is wrong.
        """
        return self._send("POST", f"/models/{quote(model, safe='')}/{what}", body)

    def _predictions(self, model: str, form: str, entries: Record | Sequence[Record]) -> Any:
        if isinstance(entries, Mapping):
            return self.ask(model, "predict", {form: entries})["prediction"]
        found: list[float] = []
        for begin in range(0, len(entries), MOST_RECORDS):
            part = list(entries[begin : begin + MOST_RECORDS])
            try:
                answer = self.ask(model, "predict", {f"{form}s": part})
            except RefusedError as error:
                moved = [{**p, "record": p["record"] + begin} for p in error.problems]
                raise RefusedError(error.status, str(error).partition("\n")[0], moved) from None
            found += [one["prediction"] for one in answer["predictions"]]
        return found

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            answer = self._session.request(method, f"{self.url}{path}", json=body, timeout=self._timeout_s)
            told = answer.json()
        except requests.RequestException as error:
            raise RefusedError(
                0,
                f"{self.url} does not answer ({type(error).__name__}); is the service up, and is this its address?",
            ) from error
        if answer.status_code != 200:
            raise RefusedError(answer.status_code, str(told.get("error", told)), told.get("problems", ()))
        return cast(dict[str, Any], told)


def _local(name: str) -> str | None:
    """What this machine's own service has written into EVERGREEN_HOME; None where it has not."""
    home = Path(os.environ.get("EVERGREEN_HOME") or ".evergreen")
    try:
        return (home / "serving" / name).read_text().strip()
    except OSError:
        return None
