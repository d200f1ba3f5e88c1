"""One event, one line: ``level=warning msg="..." interface=eth0`` on stderr, for people and for log collectors."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

from enforcer.printable import printable_json

logger = logging.getLogger("enforcer")

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@*+")


def setup(level: int = logging.INFO) -> None:
    """Send the project's log to stderr; with the time, unless journald adds it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(with_time="JOURNAL_STREAM" not in os.environ))
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def event(level: int, message: str, **fields: object) -> None:
    """Log one event with its facts."""
    logger.log(level, "%s", message, extra={"fields": fields})


class LineFormatter(logging.Formatter):
    """Writes ``key=value`` pairs; whatever a value holds, it stays on its line."""

    def __init__(self, *, with_time: bool) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        pairs: dict[str, Any] = {}
        if self._with_time:
            pairs["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        pairs |= {"level": record.levelname.lower(), "msg": record.getMessage()}
        pairs |= getattr(record, "fields", {})
        if record.exc_info:
            pairs["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_value(value)}" for key, value in pairs.items())


def _value(value: object) -> str:
    text = str(value)
    return text if text and set(text) <= _PLAIN else printable_json(json.dumps(text, ensure_ascii=False))
