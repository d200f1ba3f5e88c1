"""One event, one line: ``level=warning msg="..." interface=eth0`` on stderr, for people and for log collectors."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from typing import Any, TextIO

from enforcer.model.printable import printable_json

logger = logging.getLogger("enforcer")

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@*+")


def setup(level: int = logging.INFO) -> None:
    """Send the log to stderr, with a timestamp unless journald adds it."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(LineFormatter(with_time="JOURNAL_STREAM" not in os.environ))
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    sys.unraisablehook = _freed


def event(level: int, message: str, *, error: BaseException | None = None, **fields: object) -> None:
    """Log one event with its fields, and with the traceback of an error."""
    logger.log(level, "%s", message, exc_info=error, extra={"fields": fields})


def log_without_blocking(message: str) -> None:
    """Log a warning if that is possible at once: waits neither for a lock nor for a reader."""
    record = logger.makeRecord(logger.name, logging.WARNING, "", 0, "%s", (message,), None)
    for handler in logger.handlers:
        if isinstance(handler, _Handler) and handler.is_ready(wait_s=0.0):
            os.write(handler.stream.fileno(), f"{handler.format(record)}\n".encode(errors="backslashreplace"))


def _freed(what: sys.UnraisableHookArgs) -> None:
    """Log exceptions of finalizers at level debug instead of printing tracebacks, which no journal could attribute."""
    error = what.exc_value if isinstance(what.exc_value, Exception) else None
    event(logging.DEBUG, "exception in a finalizer", error=error)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # the class is generic in its stubs only
    """Does not block forever on a reader that has stopped reading: it drops the line, and the next line reports it."""

    _WAIT_S = 2.0

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self.is_ready(wait_s=0.0 if self._lost else self._WAIT_S):
            self._lost += 1
            return
        if self._lost:
            record.fields = {**getattr(record, "fields", {}), "lines_lost_before": self._lost}
            self._lost = 0
        super().emit(record)

    def is_ready(self, *, wait_s: float) -> bool:
        """Whether a line can be written within that time."""
        try:
            poll = select.poll()  # select(2) takes no descriptor above 1023
            poll.register(self.stream.fileno(), select.POLLOUT)
            return bool(poll.poll(wait_s * 1000))
        except (OSError, ValueError, AttributeError):
            return True  # no such stream: writing to it does not block either


class LineFormatter(logging.Formatter):
    """Writes ``key=value`` pairs on one line, whatever the values contain."""

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
