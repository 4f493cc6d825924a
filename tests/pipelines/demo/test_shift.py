"""`srghn demo --shift` whole: the world moves, moves back, and then is one that nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.registry.ledger import Ledger
from tests.conftest import Srghn

#: Two and a half minutes on two cores of their own; a machine that is shared takes longer.
DEADLINE_SECONDS = 600.0


@pytest.mark.slow
@pytest.mark.services
def test_the_loop_closes_itself(srghn: Srghn, tmp_path: Path) -> None:
    done = srghn("demo", "--shift", "--json", timeout=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    flipped, back, pole = told["shifts"]
    # the actions swap meaning: nobody was good there, so it evolves in the mode that it diagnosed
    assert (flipped["diagnosis"], flipped["mode"], flipped["recalled"]) == (
        "known",
        "flipped",
        None,
    )
    assert 1 <= flipped["episodes_until_alarm"] <= 30
    assert {each["mode"] for each in flipped["evidence"] if each["fits"]} == {"flipped"}
    assert flipped["evaluations"] > 0
    means = flipped["mean_return"]
    assert means["before"] > 450
    assert means["during"] < 250
    assert means["after"] > 400
    # they swap back: the first champion is recalled, and nothing evolves
    assert (back["diagnosis"], back["mode"], back["recalled"]) == ("known", "normal", 1)
    assert back["evaluations"] == 0
    assert back["mean_return"]["after"] > 400
    # a pole that nobody pinned: told, and nothing is begun
    assert (pole["diagnosis"], pole["mode"], pole["recalled"]) == ("none", None, None)
    assert pole["evaluations"] == 0
    assert [served["version"] for served in told["served"]] == [1, 2, 3]
    assert [served["mode"] for served in told["served"]] == ["normal", "flipped", "normal"]
    picture = Path(told["picture"]).read_text(encoding="utf-8")
    for words in (
        "alarm",
        "diagnosis: flipped",
        "evolution",
        "recall of version 1",
        "another pole",
    ):
        assert words in picture
    ledger = Ledger(f"sqlite:///{tmp_path / '.srghn' / 'ledger.db'}")
    assert ledger.verify()
    assert ledger.service_mode() == "normal"
    ledger.close()
    again = srghn("demo", "--shift")
    assert (again.returncode, "has a champion already" in again.stderr) == (3, True)
