"""A booster that answers one row in as little time as it takes: XGBoost's in-place prediction, asked without the Python around it.

`Booster.inplace_predict` spends four fifths of a single row's time on looking what kind of data it was given. Here the array is made
once and written again for each request, its description and the arguments are made once, and so is the proxy that XGBoost would
otherwise make for each call. It is the same function of XGBoost's documented C API (`XGBoosterPredictFromDense`), so the numbers are
the same to the last bit; that is tried when a version is loaded.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import xgboost as xgb
from xgboost.core import _LIB

_ARGUMENTS = json.dumps({
    "type": 0, "training": False, "iteration_begin": 0, "iteration_end": 0, "missing": float("nan"), "strict_shape": False,
}).encode()  # fmt: skip


class FastBooster:
    """A booster on one thread, with room for so many rows; not for two threads at once."""

    def __init__(self, file: Path, features: int, most_rows: int) -> None:
        """Load it.

        Args:
            file: of XGBoost's own format.
            features: columns of its rows.
            most_rows: that are asked for at once.

        Raises:
            xgboost.core.XGBoostError: the file cannot be read.
        """
        self.booster = xgb.Booster()
        self.booster.load_model(file)
        self.booster.set_param({"nthread": 1, "device": "cpu"})
        self.rows = np.empty((most_rows, features), np.float32)
        """Where rows are written before `predict`."""
        self._described = [_described(self.rows[:count]) for count in range(min(most_rows, 128) + 1)]
        self._proxy = ctypes.c_void_p()
        _check(_LIB.XGProxyDMatrixCreate(ctypes.byref(self._proxy)))
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self._found = ctypes.POINTER(ctypes.c_float)()
        self._results = (ctypes.byref(self._shape), ctypes.byref(self._dimensions), ctypes.byref(self._found))

    def predict(self, count: int) -> list[float]:
        """The predictions of the first rows: the label's unit, or the probability of class 1.

        Raises:
            xgboost.core.XGBoostError: XGBoost refuses them.
        """
        described = self._described[count] if count < len(self._described) else _described(self.rows[:count])
        _check(
            _LIB.XGBoosterPredictFromDense(
                self.booster.handle, described, _ARGUMENTS, self._proxy, *self._results
            )
        )
        return self._found[:count]

    def contributions(self, rows: np.ndarray, numeric: int) -> np.ndarray:
        """What each feature adds to the margin of each row (float32, rows x (features + 1)); the last column is the bias.

        Args:
            rows: encoded (float32).
            numeric: how many of the columns, the first ones, are numbers.
        """
        types = ["float"] * numeric + ["c"] * (rows.shape[1] - numeric)
        matrix = xgb.DMatrix(rows, feature_types=types, enable_categorical=True, nthread=1)
        return np.asarray(self.booster.predict(matrix, pred_contribs=True, validate_features=False))

    def close(self) -> None:
        """Give the proxy back."""
        if self._proxy:
            _LIB.XGDMatrixFree(self._proxy)
            self._proxy = ctypes.c_void_p()


def _described(rows: np.ndarray) -> bytes:
    """The array interface of rows that stay where they are."""
    return json.dumps({
        "data": (rows.ctypes.data, True), "shape": rows.shape, "typestr": "<f4", "version": 3, "strides": None,
    }).encode()  # fmt: skip


def _check(status: int) -> None:
    if status != 0:
        raise xgb.core.XGBoostError(_LIB.XGBGetLastError().decode())
