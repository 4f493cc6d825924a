"""Quiet and offline by default: no telemetry, no update checks, unless a user turns them on."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

#: What keeps every tool underneath quiet, offline and quick to give up, unless the user chose.
QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it prints a traceback of what it also raises
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # It would print links between the lines of `--json`.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A tracking server that does not answer costs seconds: what it missed is delivered later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "DVC_NO_ANALYTICS": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime would send what it loads to its makers
    "GX_ANALYTICS_ENABLED": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


#: This machine's own servers are never asked for through an HTTP proxy.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def be_quiet() -> None:
    """Set the quiet-and-offline defaults for this process and its children."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        given = [each for each in os.environ.get(name, "").split(",") if each.strip()]
        os.environ[name] = ",".join([*given, *(each for each in LOOPBACK if each not in given)])


@contextmanager
def hushed() -> Iterator[None]:
    """Without torch's own words: a failed export prints the whole graph beside our one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
