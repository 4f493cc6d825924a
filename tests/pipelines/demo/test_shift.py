"""Parts of `srghn demo --shift`; `make shift` runs it whole and holds it against `closed.py`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo.shift import run_shift
from srghn.errors import ConfigError
from tests.pipelines.conftest import Home
from tests.pipelines.demo import closed

RESULTS = Path(__file__).parents[3] / "docs" / "results"
#: What the latest whole run told.
CLOSED: dict[str, Any] = json.loads((RESULTS / "shift.json").read_text(encoding="utf-8"))


def test_the_latest_whole_run_closed_the_loop() -> None:
    closed.told_well(CLOSED)
    closed.drawn(RESULTS / CLOSED["picture"])


def late(told: dict[str, Any]) -> None:
    told["shifts"][0]["episodes_until_alarm"] = 31


def evolved_back(told: dict[str, Any]) -> None:
    told["shifts"][1] |= {"recalled": None, "evaluations": 900}


def took_the_pole_for_a_mode(told: dict[str, Any]) -> None:
    told["shifts"][2] |= {"diagnosis": "known", "mode": "flipped"}


def stayed_bad(told: dict[str, Any]) -> None:
    told["shifts"][0]["mean_return"]["after"] = 100.0


@pytest.mark.parametrize("change", [late, evolved_back, took_the_pole_for_a_mode, stayed_bad])
def test_a_loop_that_does_not_close_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    bad = copy.deepcopy(CLOSED)
    change(bad)
    with pytest.raises(AssertionError):
        closed.told_well(bad)


def test_a_home_with_a_champion_is_refused(home: Home) -> None:
    home.release.approve(1, "ann", "the first")
    with pytest.raises(ConfigError, match="has a champion already"):
        run_shift(home.settings, 0)
