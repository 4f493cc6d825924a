"""A witness that another process holds keeps no step waiting for long."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.witness import Witness

ANN = Who("ann", "because")


def test_a_process_that_was_stopped_while_it_appended_holds_nobody_up(
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The step was taken by then; the next one signs it, too."""
    monkeypatch.setattr("serving.registry.witness.LOCK_SECONDS", 0.2)
    ledger.note("drift", {"n": 1}, who=ANN)
    with (tmp_path / "witness.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        step = threading.Thread(
            target=ledger.note, args=("drift", {"n": 2}), kwargs={"who": ANN}, daemon=True
        )
        step.start()
        step.join(20)
        assert not step.is_alive()
    assert "it may have been stopped" in caplog.text
    assert Witness(tmp_path).entries()[-1].seq == 1
    ledger.note("drift", {"n": 3}, who=ANN)
    assert Witness(tmp_path).entries()[-1].seq == 3
    ledger.verify()
