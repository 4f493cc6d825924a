"""Logs: one line for each event, as text or as JSON, with the request's id and its trace."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

#: Id and trace of the current request; empty outside a request.
REQUEST: ContextVar[tuple[str, str]] = ContextVar("request", default=("", ""))
_TEXT = "%(levelname)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """A JSON object per line: time, level, logger, message, and a request's id and trace."""

    def format(self, record: logging.LogRecord) -> str:
        name, trace = REQUEST.get()
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if name:
            said["request_id"] = name
        if trace:
            said["trace_id"] = trace
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def begin_logging(form: str) -> None:
    """Log to stderr as `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
