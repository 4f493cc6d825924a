"""The bench of the HTTP server: it measures what answers, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.lab.bench.http import clients
from pipelines.lab.bench.http.contestants import bare
from pipelines.lab.bench.http.load import Rate, Refused, load, resident_mib
from pipelines.lab.bench.http.run import _row, copy_home, serving, works
from serving.settings import Settings
from srghn.errors import ServiceError
from tests.serving.conftest import Home, maker


@pytest.mark.services
def test_each_work_is_answered_and_measured(tmp_path: Path) -> None:
    made = Home(tmp_path / "home", maker(tmp_path))
    made.first()
    made.ledger.close()
    model, size = copy_home(made.settings, tmp_path / "copy")
    assert bare(model)
    with serving(tmp_path / "copy") as server:
        for work in works(size):
            rate = load(server.url, server.workers(), [work.client() for _ in range(2)], 0.1)
            assert rate.requests > 0, work.name
            assert 0 < rate.p50_ms <= rate.p99_ms
        assert resident_mib(server.workers()[0]) > 10
        core = min(os.sched_getaffinity(0))
        server.stay_on(core)
        threads = Path(f"/proc/{server.workers()[0]}/task").iterdir()
        assert {frozenset(os.sched_getaffinity(int(one.name))) for one in threads} == {
            frozenset([core])
        }
        wrong = clients.always(clients.request("/v1/act", b"{}"))
        with pytest.raises(Refused, match="422"):
            load(server.url, server.workers(), [wrong], 0.1)
    made = Home(tmp_path / "home", maker(tmp_path / "more"))
    assert made.ledger.verify()  # the home itself was left alone


def test_without_a_champion_it_says_what_to_do(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home").resolved()
    with pytest.raises(ServiceError, match="srghn demo"):
        copy_home(settings, tmp_path / "copy")


def test_shares_are_of_the_bare_function_just_before() -> None:
    slow, fast = Rate(100, 1.0, 1.0, 1.0, 2.0), Rate(200, 1.0, 1.0, 1.0, 2.0)
    row = _row("x", 1, [(fast, slow), (fast, fast), (slow, slow)], 0.5, 0.75)
    assert (row["of_bare"], row["of_constant"], row["aim_of_bare"]) == (1.0, 2.0, 0.75)


def test_episodes_return_their_token_and_post_their_outcome() -> None:
    client = clients.Episodes(4, 2)
    first = _body(client(b""))
    second = _body(client(b'{"action":1,"token":"abc"}'))
    assert "token" not in first
    assert (second["episode_id"], second["token"]) == (first["episode_id"], "abc")
    posted = client(b'{"action":1,"token":"abd"}')
    assert posted.startswith(f"POST /v1/episodes/{first['episode_id']}/outcome ".encode())
    assert _body(posted) == {"return": 1.5, "length": 2, "terminated": True, "token": "abd"}
    assert _body(client(b'{"counted": false}'))["episode_id"] != first["episode_id"]


def _body(request: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(request.partition(b"\r\n\r\n")[2])
    return found
