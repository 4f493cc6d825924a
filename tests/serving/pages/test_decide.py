"""Deciding by the pages' forms: as the session's owner, once, and on what was seen."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.control.decisions import STEPS
from serving.registry.database import Database
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from serving.tokens import Tokens
from serving.trial.rules import TrialTerms
from srghn.errors import LedgerError
from tests.serving.pages.test_sessions import HERE, fields, sign_in
from tests.serving.test_serving_review import passed


@pytest.fixture
def tokens(home: Any) -> Tokens:
    return Tokens(Database(home.settings.database_url))


@pytest.fixture
def client(home: Any, tokens: Tokens) -> Iterator[TestClient]:
    """A browser of ann's, who may do everything."""
    home.first()
    token = tokens.add("ann", ["admin"])
    app = create_app(home.settings)
    with TestClient(app, base_url=HERE, follow_redirects=False) as opened:
        sign_in(opened, token)
        yield opened


def form(client: TestClient, step: str, version: int | None = None) -> dict[str, str]:
    page = client.get(f"/decide/{step}" + (f"?version={version}" if version else ""))
    assert page.status_code == 200, page.text
    found = fields(page.text)
    return {**found, "read": "yes"} if step == "approve" else found


def take(client: TestClient, step: str, said: dict[str, str], **more: str) -> Any:
    return client.post(f"/decide/{step}", data={**said, "reason": "I looked", **more})


def test_the_way_of_a_version_in_the_browser(client: TestClient, home: Any) -> None:
    version = passed(home)
    done = take(client, "approve", form(client, "approve", version))
    assert done.status_code == 303, done.text
    event = home.ledger.events(newest=True, limit=1)[0]
    assert (event.actor, event.reason, event.to_state) == ("ann", "I looked", "CANARY")
    assert done.headers["location"] == f"../?done={event.seq}"
    said = client.get(f"/?done={event.seq}").text
    assert f"Recorded as event {event.seq} of the history" in said
    for step, status in (("pause", "paused"), ("resume", "running"), ("hold", "held")):
        assert take(client, step, form(client, step)).status_code == 303
        assert home.ledger.canary().status == status
    assert take(client, "weight", form(client, "weight"), weight="0.2").status_code == 303
    assert home.ledger.canary().weight == 0.2
    assert take(client, "abort", form(client, "abort")).status_code == 303
    assert home.ledger.version(version).state == "ABORTED"
    second = home.second(bias=2.0)
    done = take(client, "rollback", form(client, "rollback"), version="1")
    assert done.status_code == 303, done.text
    assert home.ledger.champion().version == 1
    assert home.ledger.version(second).quarantined
    assert client.get("/health/ready").json()["version"] == 1  # read back before it is said
    assert home.ledger.verify()


def test_the_plan_is_shown_before_approval(client: TestClient, home: Any) -> None:
    version = passed(home)
    page = client.get(f"/decide/approve?version={version}").text
    assert "an equal canary in" in page
    assert "with 0% of outcomes missing" in page
    home.ledger.set_deployment_rules(
        DeploymentRules(trial=TrialTerms(missing=0.05, max_episodes=50)), who=Who("ann", "short")
    )
    page = client.get(f"/decide/approve?version={version}").text
    assert "an equal canary stays undecided in most trials: within 50 episodes" in page
    assert "5% missing outcomes" in page


def test_an_approved_version_that_waited_is_started_and_a_pass_is_rejected(
    client: TestClient, home: Any
) -> None:
    home.steps.canary(home.approved(bias=1.0))
    version = passed(home)
    assert take(client, "approve", form(client, "approve", version)).status_code == 303
    assert home.ledger.version(version).state == "APPROVED"
    other = {**form(client, "abort"), "version": str(version)}  # its own page has no form now
    refused = take(client, "start", other)
    assert (refused.status_code, "one canary at a time" in refused.text) == (409, True)
    assert take(client, "abort", form(client, "abort")).status_code == 303
    assert take(client, "start", form(client, "start", version)).status_code == 303
    assert home.ledger.canary().version == version
    assert take(client, "reject", form(client, "abort")).status_code == 409
    other = home.approved(bias=3.0)
    assert take(client, "reject", form(client, "reject", other)).status_code == 303
    assert home.ledger.version(other).state == "REJECTED"


def test_a_step_that_is_impossible_by_now_has_no_form(client: TestClient, home: Any) -> None:
    """The button stood there for a trial that was over, and led to a refusal."""
    version = home.approved(bias=1.0)
    home.steps.canary(version)
    for step in ("resume", "start", "reject", "approve"):
        text = client.get(f"/decide/{step}?version={version}").text
        assert "<textarea" not in text, step
        said = "is running already" if step == "resume" else "CANARY"
        assert said in text, step
    assert "<textarea" in client.get(f"/decide/pause?version={version}").text
    take(client, "abort", form(client, "abort"))
    for step in ("pause", "hold", "resume", "weight", "abort"):
        shown = client.get(f"/decide/{step}?version={version}")
        assert (shown.status_code, "<textarea" in shown.text) == (200, False), step
        assert "No version is on trial now." in shown.text
        assert client.get(f"/decide/{step}").status_code == 422  # and none is named
    for version in (None, 1):
        shown = client.get("/decide/rollback" + (f"?version={version}" if version else ""))
        assert shown.status_code == (200 if version else 422)
        assert "<textarea" not in shown.text
        assert "no former champion" in shown.text


def test_the_first_champion_is_promoted_and_has_no_trial(client: TestClient, home: Any) -> None:
    arm = home.of("arm")
    version = passed(arm)
    arm.steps.approve(version)
    client.app.state.service.discover()
    shown = client.get(f"/decide/start?version={version}").text
    assert f"Promote version {version}?" in shown
    assert "trial" not in shown.partition("<dl>")[0].partition("<h2>")[2]
    assert take(client, "start", {**fields(shown)}).status_code == 303
    assert home.ledger.champion("arm").version == version


def test_of_two_operators_one_wins(client: TestClient, home: Any) -> None:
    home.second(bias=2.0)
    mine, theirs = form(client, "rollback"), form(client, "rollback")
    assert take(client, "rollback", theirs, version="1").status_code == 303
    count = home.ledger.count()
    late = take(client, "rollback", mine, version="1")
    assert late.status_code == 412
    assert "Nothing was changed." in late.text
    assert "there is generation 3" in late.text
    assert "I looked" in late.text  # the reason is not lost
    assert home.ledger.count() == count


def test_a_decision_on_a_trial_is_never_taken_on_another(client: TestClient, home: Any) -> None:
    """The champion's generation is the same for both."""
    home.steps.canary(home.approved(bias=1.0))
    late = form(client, "abort")
    assert take(client, "abort", form(client, "abort")).status_code == 303
    other = home.approved(bias=3.0)
    home.steps.canary(other)
    answer = take(client, "abort", late)
    assert (answer.status_code, "is not on trial" in answer.text) == (409, True)
    assert home.ledger.canary().version == other


def test_a_form_that_is_sent_twice_counts_once(client: TestClient, home: Any) -> None:
    home.steps.canary(home.approved(bias=1.0))
    said = form(client, "pause")
    assert take(client, "pause", said).status_code == 303
    count = home.ledger.count()
    assert take(client, "pause", said).status_code == 303
    assert home.ledger.count() == count


def test_no_other_site_decides(client: TestClient, home: Any, tokens: Tokens) -> None:
    home.second(bias=2.0)
    said, count = form(client, "rollback"), home.ledger.count()
    body = {**said, "version": "1", "reason": "I looked"}
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        assert client.post("/decide/rollback", data=body, headers=headers).status_code == 403
        assert client.post("/sign-in", data={"here": "yes"}, headers=headers).status_code == 403
    assert client.post("/decide/rollback", data={**body, "form": "0" * 64}).status_code == 403
    assert client.post("/decide/rollback", json=body).status_code == 415
    assert client.post("/sign-out", data={"form": ""}).status_code == 403
    sign_in(client, tokens.add("bob", ["admin"]))
    assert client.post("/decide/rollback", data=body).status_code == 403  # made for ann's session
    client.cookies.clear()
    assert client.post("/decide/rollback", data=body).status_code == 401
    assert home.ledger.count() == count


def test_a_reviewer_reviews_and_an_admin_does_all(
    client: TestClient, home: Any, tokens: Tokens
) -> None:
    home.second(bias=2.0)
    home.steps.canary(home.approved(bias=1.0))
    waiting = passed(home)
    sign_in(client, tokens.add("rea", ["review"]))
    page = client.get("/").text
    assert f"decide/approve?version={waiting}" in page
    for step, known in STEPS.items():
        status = 200 if known.scope == "review" else 403
        assert client.get(f"/decide/{step}?version={waiting}").status_code == status, step
        if known.scope == "admin":
            assert f"decide/{step}" not in page
            assert client.post(f"/decide/{step}", data={"form": "x"}).status_code == 403
    sign_in(client, tokens.add("look", ["infer"]))
    assert "decide/" not in client.get("/").text


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        ("rollback", {"reason": "  "}, "reason: expected 1 to 2000 characters"),
        ("rollback", {"reason": "x" * 2001}, "reason: expected 1 to 2000 characters"),
        ("rollback", {"generation": "-1"}, "generation: expected a number"),
        ("rollback", {"key": ""}, "key: expected the one of the form"),
        ("rollback", {"version": "2"}, "only a retired champion can be brought back"),
        ("weight", {"weight": "lots"}, "weight: expected a share from 0 to 0.99"),
        ("weight", {"weight": "nan"}, "weight: expected a share"),
        ("weight", {"weight": "1.5"}, "weight: expected a share"),
    ],
)
def test_what_is_wrong_with_a_form_is_said_on_its_page(
    client: TestClient, home: Any, step: str, change: dict[str, str], words: str
) -> None:
    home.second(bias=2.0)
    home.steps.canary(home.approved(bias=1.0))
    count = home.ledger.count()
    answer = take(client, step, {"version": "1", **form(client, step)}, **change)
    assert answer.status_code in (409, 422), answer.text
    assert words in answer.text
    assert "Nothing was changed." in answer.text
    assert home.ledger.count() == count


def test_an_approval_needs_the_report_to_have_been_read(client: TestClient, home: Any) -> None:
    version = passed(home)
    said = form(client, "approve", version)
    del said["read"]
    assert take(client, "approve", said).status_code == 422
    said |= {"read": "yes", "report": "0" * 64}
    assert take(client, "approve", said).status_code == 409
    assert home.ledger.version(version).state == "PASSED"


def test_a_candidate_that_is_damaged_is_said_on_the_page(client: TestClient, home: Any) -> None:
    version = passed(home)
    said = form(client, "approve", version)
    folder = home.store.path(home.ledger.version(version).digest)
    (folder / "policy.onnx").write_bytes(b"junk")
    answer = take(client, "approve", said)
    assert answer.status_code == 503
    assert "policy.onnx was changed" in answer.text
    assert "Nothing was changed." in answer.text
    assert home.ledger.version(version).state == "PASSED"


def test_what_is_not_there_is_said(client: TestClient, home: Any) -> None:
    assert client.get("/decide/nothing").status_code == 404
    assert client.get("/decide/approve?version=99").status_code == 404
    assert client.get("/decide/approve?version=x").status_code == 422
    assert client.get("/decide/approve?version=1&policy=other").status_code == 404
    assert client.get("/decide/abort").status_code == 422  # no trial, and no version named
    assert client.post("/decide/nothing", data={"form": ""}).status_code == 404


@pytest.mark.parametrize(
    ("to", "leads"),
    [
        ("decide/rollback", "./decide/rollback"),
        ("versions/3", "./versions/3"),
        ("policies/arm.2-b_c", "./policies/arm.2-b_c"),
        ("versions?before=100&policy=a.b", "./versions?before=100&policy=a.b"),
        ("episode?id=client.1:2%20x", "./episode?id=client.1:2%20x"),
        ("v1/policies/arm/versions/3/report", "./v1/policies/arm/versions/3/report"),
        ("docs", "./docs"),
        ("v1//evil.example", "./"),
        ("policies/.hidden", "./"),
        ("docs/../../x", "./"),
        ("evil.example", "./"),
        ("javascript:alert(1)", "./"),
        ("versions?a=\\\\evil", "./"),
        ('versions?a="><script>', "./"),
        ("versions/\u0663", "./"),
        ("//evil.example", "./"),
        ("https://evil.example", "./"),
        ("decide/../../x", "./"),
        ("decide/x\r\nSet-Cookie: a=b", "./"),
    ],
)
def test_signing_in_leads_back_to_our_own_pages_alone(
    client: TestClient, tokens: Tokens, to: str, leads: str
) -> None:
    token = tokens.add("bob", ["review"])
    answer = client.post("/sign-in", data={"token": token, "next": to})
    assert answer.headers["location"] == leads


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
@pytest.mark.parametrize("status", [404, 503])
def test_signing_in_counts_even_if_the_wanted_page_is_refused(
    client: TestClient, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, accept: str, status: int
) -> None:
    def broken(*args: Any) -> Any:
        raise LedgerError("the disk is gone")

    token = tokens.add("bob", ["review"])
    said = {"token": token, "next": "decide/reject?version=99", "reason": "it is wrong"}
    client.cookies.clear()
    with monkeypatch.context() as now:
        if status == 503:
            now.setattr("serving.routes.decide.find_any", broken)
        answer = client.post("/sign-in", data=said, headers={"Accept": accept})
    assert answer.status_code == status, answer.text
    assert "HttpOnly" in answer.headers["set-cookie"]
    if accept == "text/html":
        assert "it is wrong" in answer.text
        assert "<span>bob</span>" in answer.text
    assert client.get("/decide/reject?version=1").status_code == 200


def test_every_link_stays_behind_a_proxys_path_prefix(client: TestClient, home: Any) -> None:
    """Nobody told the server of the prefix: links are relative, and the cookie has no path."""
    home.second(bias=2.0)
    trial = home.approved(bias=1.0)
    home.steps.canary(trial)
    prefix, seen = "http://proxy/plant/policies", 0
    for path in ("/", "/history", f"/versions/{trial}", f"/compare?a=1&b={trial}", "/decide/abort"):
        for link in re.findall(r'(?:href|action)="([^"#]*)"', client.get(path).text):
            if link.startswith("data:"):
                continue
            seen += 1
            assert urljoin(prefix + path, unescape(link)).startswith(prefix + "/"), (path, link)
    assert seen > 50
    done = take(client, "abort", form(client, "abort")).headers["location"]
    assert urljoin(f"{prefix}/decide/abort", done).startswith(f"{prefix}/?done=")


def test_a_locked_ledger_is_said_on_the_page_and_the_reason_kept(
    client: TestClient, home: Any
) -> None:
    home.steps.canary(home.approved(bias=1.0))
    said, count = form(client, "weight"), home.ledger.count()
    other = sqlite3.connect(home.settings.home / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = take(client, "weight", said, weight="0.25", reason="too much load")
    other.execute("ROLLBACK")
    other.close()
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert "Nothing was changed." in answer.text
    assert "too much load</textarea>" in answer.text
    assert 'value="0.25"' in answer.text
    assert home.ledger.count() == count


def test_it_is_said_if_only_a_part_was_done(
    client: TestClient, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = passed(home)
    said = form(client, "approve", version)

    def full(*given: Any, **named: Any) -> None:
        raise LedgerError("no space is left")

    monkeypatch.setattr("serving.control.release.start_canary", full)
    answer = take(client, "approve", said)
    assert answer.status_code == 503
    event = home.ledger.events(newest=True, limit=1)[0]
    assert event.to_state == "APPROVED"
    assert f"Only a part was done, which event {event.seq} of the history records." in answer.text
    assert "Nothing was changed." not in answer.text


def test_a_form_of_another_session_is_shown_again_with_its_reason(
    client: TestClient, home: Any, tokens: Tokens
) -> None:
    home.second(bias=2.0)
    said = form(client, "rollback")
    sign_in(client, tokens.add("bob", ["admin"]))
    answer = take(client, "rollback", said, reason="the arm shakes")
    assert answer.status_code == 403
    assert "Nothing was changed." in answer.text
    assert "the arm shakes</textarea>" in answer.text
    assert take(client, "rollback", fields(answer.text), version="1").status_code == 303


def test_a_session_that_ended_loses_no_reason(
    client: TestClient, home: Any, tokens: Tokens
) -> None:
    home.steps.canary(home.approved(bias=1.0))
    written = "the load\r\nis too high <b>"
    said = {**form(client, "weight"), "weight": "0.25", "reason": written}
    client.cookies.clear()
    asked = client.post("/decide/weight", data=said)
    assert asked.status_code == 401
    assert "Your session ended, and nothing was changed." in asked.text
    kept = fields(asked.text)
    assert kept["reason"] == written.replace("\r\n", "\n")
    wrong = client.post("/sign-in", data={**kept, "token": "srghn_guess"})
    assert fields(wrong.text) == kept
    back = client.post("/sign-in", data={**kept, "token": tokens.add("cleo", ["admin"])})
    assert back.status_code == 200
    assert "Nothing was changed yet" in back.text
    assert "the load\nis too high &lt;b&gt;</textarea>" in back.text
    assert 'value="0.25"' in back.text
    done = take(client, "weight", fields(back.text), weight="0.25", reason=written)
    assert done.status_code == 303
    event = home.ledger.events(newest=True, limit=1)[0]
    assert (event.actor, event.reason) == ("cleo", "the load\nis too high <b>")
    back = client.post("/sign-in", data={**kept, "token": tokens.add("rea", ["review"])})
    assert back.status_code == 403
    assert "this step needs admin" in back.text


def test_a_line_break_counts_once_and_nothing_is_cut(client: TestClient, home: Any) -> None:
    """A browser counts it as one character, and sends two."""
    home.steps.canary(home.approved(bias=1.0))
    long = "\r\n".join(["x" * 49] * 40)
    assert take(client, "pause", form(client, "pause"), reason=long).status_code == 303
    reason = home.ledger.events(newest=True, limit=1)[0].reason
    assert reason == long.replace("\r\n", "\n")
    assert len(reason) == 1999
    refused = take(client, "resume", form(client, "resume"), reason="x" * 2005 + "the end")
    assert refused.status_code == 422
    assert "the end</textarea>" in refused.text


@pytest.mark.parametrize("control", ["\x1b[2J", "\r", "\x9b31m", "\0"])
def test_a_reason_that_would_steer_a_terminal_is_refused(
    client: TestClient, home: Any, control: str
) -> None:
    home.steps.canary(home.approved(bias=1.0))
    count = home.ledger.count()
    answer = take(client, "pause", form(client, "pause"), reason=f"a storm{control} comes")
    assert answer.status_code == 422
    assert "no control characters but tabs and line breaks" in answer.text
    assert home.ledger.count() == count
