"""What `srghn demo --shift` must have done: `make shift` holds its result against this.

SRGHN_HOME=HOME srghn demo --shift --json > told.json
python -m tests.pipelines.demo.closed told.json HOME docs/results
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from serving.registry.ledger import Ledger

WORDS = ("alarm", "diagnosis: flipped", "evolution", "recall of version 1", "another pole")


def told_well(told: Mapping[str, Any]) -> None:
    """The three shifts, as they are told."""
    flipped, back, pole = told["shifts"]
    # the actions swap meaning: nobody was good there, so it evolves in the mode that it diagnosed
    assert (flipped["diagnosis"], flipped["mode"]) == ("known", "flipped")
    assert flipped["recalled"] is None
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


def drawn(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    missing = [words for words in WORDS if words not in text]
    assert not missing, missing


def kept(home: Path) -> None:
    """What the home holds afterwards."""
    with closing(Ledger(f"sqlite:///{home / 'ledger.db'}")) as ledger:
        assert ledger.verify()
        assert ledger.service_mode() == "normal"
        assert ledger.canary() is None


def main(file: Path, home: Path, results: Path) -> None:
    """Check a run, and keep what it told and its picture among the results."""
    told = json.loads(file.read_text(encoding="utf-8"))
    picture = Path(told["picture"])
    told_well(told)
    drawn(picture)
    kept(home)
    shutil.copyfile(picture, results / picture.name)
    said = json.dumps({**told, "picture": picture.name}, indent=1)
    (results / "shift.json").write_text(f"{said}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(each).resolve() for each in sys.argv[1:]))
    sys.stdout.write("the loop closed itself, as it must\n")
