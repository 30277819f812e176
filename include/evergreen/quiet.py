"""What libraries write into logs: their warnings go the way of all records, and what they tell of themselves stays out.

Airflow takes each line on stderr for an error. A library that brings a handler of its own for stderr makes an error of
"waiting for the version to be created".
"""

from __future__ import annotations

import logging


def hand_over(*names: str) -> None:
    """Take a library's handlers from its loggers, and leave it its warnings and errors, which whoever configured logging gets.

    Called after the import of the library, which sets the handlers.

    Args:
        names: of its loggers, those that have handlers or levels of their own.
    """
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [h for h in logger.handlers if not isinstance(h, logging.StreamHandler)]
        logger.propagate = True
        logger.setLevel(max(logger.level, logging.WARNING))
