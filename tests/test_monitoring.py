"""Alerts and dashboard: they ask for metrics that exist, and each alert has its runbook line."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.logs import MOST, REQUEST, SECONDS, Bounded, JsonLines, TextLines

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "monitoring"
RULES = FOLDER / "alerts.yml"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    board = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [*asked, *(rule["expr"] for rule in rules())]


def test_every_metric_that_is_asked_for_is_served(tmp_path: Path) -> None:
    from tests.serving.conftest import Home, maker

    home = Home(tmp_path / "home", maker(tmp_path))
    home.first()
    with TestClient(create_app(home.settings)) as client:
        text = client.get("/metrics").text
    home.ledger.close()
    served = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    asked = {name for said in expressions() for name in re.findall(r"srghn_\w+", said)}
    assert len(asked) > 10
    for name in asked:
        assert {name, name.removesuffix("_total"), name.removesuffix("_bucket")} & served, name


def test_each_alert_has_its_line_in_the_runbook() -> None:
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    for rule in rules():
        assert f"### {rule['alert']}\n" in page
        assert rule["annotations"]["runbook"] == f"docs/operate.md#{rule['alert'].lower()}"


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: .ci/run installs it"
)


@needs_promtool
@pytest.mark.parametrize(
    "command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_accepts_the_rules_and_each_fires(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((FOLDER / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tested[1:] for case in test["alert_rule_test"]}
    assert fired == {rule["alert"] for rule in rules()}


def test_the_first_rollback_is_an_increase(tmp_path: Path) -> None:
    """A series that begins at 1 never was 0: its alert would miss the first."""
    from tests.serving.conftest import Home, maker

    home = Home(tmp_path / "home", maker(tmp_path))
    home.first()
    with TestClient(create_app(home.settings)) as client:
        text = client.get("/metrics").text
    home.ledger.close()
    for reason in ("rollback", "revoke"):
        assert f'srghn_rollbacks_total{{reason="{reason}"}} 0.0' in text


def test_a_log_line_is_json_and_names_its_request() -> None:
    record = logging.LogRecord("serving", logging.ERROR, "f.py", 1, "lost %s", ("it",), None)
    token = REQUEST.set(("r-1", "a" * 32))
    try:
        said = json.loads(JsonLines().format(record))
    finally:
        REQUEST.reset(token)
    assert said["message"] == "lost it"
    assert (said["request_id"], said["trace_id"]) == ("r-1", "a" * 32)
    assert "request_id" not in json.loads(JsonLines().format(record))
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(JsonLines().format(record))["exception"]


def test_a_log_line_for_people_has_its_time_and_names_its_request() -> None:
    record = logging.LogRecord("serving", logging.ERROR, "f.py", 1, "lost %s", ("it",), None)
    record.created, record.msecs = 0.5, 500.0
    token = REQUEST.set(("r-1", ""))
    try:
        said = TextLines().format(record)
    finally:
        REQUEST.reset(token)
    assert said == "1970-01-01T00:00:00.500Z ERROR serving: lost it (request r-1)"
    assert TextLines().format(record).endswith("lost it")


def test_what_a_client_sent_begins_no_log_line_and_steers_no_terminal() -> None:
    path = "/a\n2026 INFO serving: all is well\r\x1b[2J\x9b2J\0é\u2028\u202e/outcome"
    record = logging.LogRecord("serving", logging.ERROR, "f.py", 1, "POST %s", (path,), None)
    said = TextLines().format(record)
    assert said.endswith(
        r"/a\n2026 INFO serving: all is well\r\x1b[2J\x9b2J\x00é\u2028\u202e/outcome"
    )
    shown = JsonLines().format(record)
    assert shown.replace("é", "").isascii()
    assert len(shown.splitlines()) == 1


def test_what_each_request_would_log_fills_no_disk() -> None:
    """On a full disk every start of an episode was a line of its own."""
    bounded = Bounded()

    def written(line: int, at: float) -> str | None:
        record = logging.LogRecord("serving", logging.ERROR, "f.py", line, "lost %s", ("it",), None)
        record.created = at
        return record.getMessage() if bounded.filter(record) else None

    most = ["lost it"] * (MOST - 1)
    assert [written(1, 5.0) for _ in range(MOST - 1)] == most
    assert written(1, 7.5) == "lost it (more of these are left out for 7.5 s)"
    assert [written(1, 8.0) for _ in range(7)] == [None] * 7
    assert written(2, 5.0) == "lost it"  # another place
    assert written(1, 4.9 + SECONDS) is None
    assert written(1, 5.0 + SECONDS) == "lost it (8 more since the last one)"
    told = "lost it (more of these are left out for 10 s)"
    assert [written(1, 5.0 + SECONDS) for _ in range(MOST)] == [*most[1:], told, None]
    assert written(1, 0.0) == "lost it (1 more since the last one)"  # the clock was set back
