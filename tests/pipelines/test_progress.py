"""The time left that lines of progress tell."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from pipelines import progress
from pipelines.commands.output import out


class _Clock:
    """The clock of `pipelines.progress`, turned by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_pace_is_that_since_the_first_step(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("evolve", 60) as update:
        clock.now = 32.0  # compiling
        update(1, "")
        clock.now = 38.0
        update(3, "")
    first, second = capsys.readouterr().err.splitlines()
    assert "evolve: 1/60" in first
    assert "left" not in first
    assert second.endswith("171 s left")  # 57 steps of three seconds


def test_steps_of_an_earlier_sitting_do_not_count_as_fast(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("evolve", 1000) as update:
        clock.now = 6.0
        update(900, "")
        clock.now = 12.0
        update(902, "")
    assert capsys.readouterr().err.splitlines()[-1].endswith("294 s left")


@pytest.mark.parametrize("terminal", [True, False])
def test_users_words_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    """`w:One: ...` became an emoji, and a mode in brackets vanished."""
    said = "w:One: in mode [red]wild :a:"
    if terminal:
        file = StringIO()
        own = Console(file=file, force_terminal=True, width=200, emoji=progress.console._emoji)
        monkeypatch.setattr(progress, "console", own)
    with progress.spinner(said), progress.patient(said):
        pass
    with progress.bar(said, 1) as update:
        update(1, said)
    shown = file.getvalue() if terminal else capsys.readouterr().err
    assert shown.count(said) >= (4 if terminal else 3)
    out.print(said, markup=False)
    assert capsys.readouterr().out == f"{said}\n"
