"""Logs: one line for each event, as text or as JSON, with the request's id and its trace.

Messages may hold what a client sent, such as a path: none of it begins a line or steers a terminal.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

from serving.registry.texts import one_line

#: So many lines of one place in the code are written in so many seconds.
MOST, SECONDS = 20, 10.0
#: Id and trace of the current request; empty outside a request.
REQUEST: ContextVar[tuple[str, str]] = ContextVar("request", default=("", ""))


class TextLines(logging.Formatter):
    """A line for people: time in UTC, level, logger, message, and a request's id."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(  # noqa: N802  logging's name
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        return _moment(record).replace("+00:00", "Z")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        name, _ = REQUEST.get()
        said = super().formatMessage(record).rstrip()  # uvicorn ends some messages with a newline
        return one_line(said) + (f" (request {name})" if name else "")


class JsonLines(logging.Formatter):
    """A JSON object per line: time, level, logger, message, and a request's id and trace."""

    def format(self, record: logging.LogRecord) -> str:
        name, trace = REQUEST.get()
        said = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": "\n".join(map(one_line, record.getMessage().rstrip().split("\n"))),
        }
        if name:
            said["request_id"] = name
        if trace:
            said["trace_id"] = trace
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


class Bounded(logging.Filter):
    """Leaves lines of a place out that writes too many: it says so at once, and later how many.

    Where the ledger cannot be written, each request would log that: on a full disk, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, int], tuple[float, int]] = {}  # place -> since when, lines

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), record.created
        since, count = self._written.get(place, (now, 0))
        if not 0 <= now - since < SECONDS:
            if count > MOST:
                said = "%s (%d more since the last one)"
                record.msg, record.args = said, (record.getMessage(), count - MOST)
            since, count = now, 0
        self._written[place] = since, count + 1
        if count == MOST - 1:  # the place may be silent afterwards, and nobody would know
            said = "%s (more of these are left out for %g s)"
            record.msg, record.args = said, (record.getMessage(), SECONDS - (now - since))
        return count < MOST


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def begin_logging(form: str) -> None:
    """Log to stderr as `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(Bounded())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
