"""Ancestors drawn for a terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.versions.lineage_view import HEAD, TAIL, WIDTH, bar, draw
from srghn.evolution.ancestry import Ancestor, Ancestry
from tests.pipelines.conftest import Home


def chain(count: int, modes: tuple[str, ...] = ("normal",)) -> list[Ancestor]:
    return [
        Ancestor(g, 7 * g, 2**62 + g, 100.0 * g, 0.1 / (g + 1), "f" * 64, modes[g % len(modes)])
        for g in range(count)
    ]


def drawn(ancestors: list[Ancestor], *, whole: bool = False) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(draw("title", ancestors, whole=whole))
    return text.getvalue()


@pytest.mark.parametrize(
    ("share", "letters"),
    [(0.0, ""), (0.5, "█" * 6), (1.0, "█" * 12), (0.53, "██████▍"), (9, "█" * 12)],
)
def test_a_bar_is_filled_to_its_share(share: float, letters: str) -> None:
    assert bar(share) == letters.ljust(WIDTH)


def test_every_ancestor_has_its_row_and_bars() -> None:
    lines = drawn(chain(4)).splitlines()
    founder = next(line for line in lines if " 0.0 " in line)
    best = next(line for line in lines if "300.0" in line)
    assert "█" * WIDTH in best
    assert "0.1000" in founder


def test_fitness_is_scaled_within_one_mode() -> None:
    """In `flipped` 100 is the best there is, and its bar is full."""
    ancestors = [*chain(3), Ancestor(5, 50, 9, 100.0, 0.1, "f" * 64, "flipped")]
    text = drawn(ancestors)
    flipped = next(line for line in text.splitlines() if "flipped" in line)
    assert f"{'█' * WIDTH} 100.0" in flipped
    assert "…" not in text


def test_fitness_that_was_not_finite_is_a_dash() -> None:
    line = drawn([Ancestor(0, 1, 2, None, 0.1, "f" * 64, "normal")]).splitlines()[-2]
    assert " - " in line


def test_a_long_chain_is_cut_in_the_middle() -> None:
    ancestors = chain(100)
    assert f"{100 - HEAD - TAIL} more: --all" in drawn(ancestors)
    assert len(drawn(ancestors).splitlines()) < 40
    assert "more" not in drawn(ancestors, whole=True)


def test_the_command_draws_a_version(finished: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(finished.settings.home))
    ancestry = Ancestry.from_json((finished.workspace.candidate / "ancestry.json").read_text())
    said = CliRunner().invoke(app, ["lineage", "1"]).stdout
    assert f"version 1: {len(ancestry.chain)} births" in said
    rows = json.loads(CliRunner().invoke(app, ["lineage", "1", "--json"]).stdout)["chain"]
    assert [row[2] for row in rows] == [ancestor.noise_seed for ancestor in ancestry.chain]
