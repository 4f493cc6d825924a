"""A run killed while it was judged, taken up after the champion changed.

`make long` takes it up at a real terminal, by the command, to its end.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.commands.run import VERDICT_EXIT
from pipelines.runs.runner import judge_again
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.services.processes import child_environment
from pipelines.versions.judge import begin, judge_version, record, recorded
from pipelines.versions.lease import Lease
from regression_suite import gate
from serving.registry.records import Who
from serving.registry.states import State
from serving.settings import Settings
from srghn.errors import TransitionRefused
from tests.forks import forked
from tests.pipelines.conftest import Home, Tiny, home_at

DEADLINE_SECONDS = 180.0


class Terminal:
    """A command on a pseudo-terminal: what it shows, and what is typed."""

    def __init__(self, folder: Path, home: Path, *arguments: str) -> None:
        self.shown = ""
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=folder,
            env=child_environment(home_at(home), {"COLUMNS": "200"}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.reader = threading.Thread(target=self._read)  # or a full terminal would stop it
        self.reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # whoever had the terminal is gone
            while data := os.read(self.master, 4096):
                self.shown += data.decode(errors="replace")

    def wait_for(self, what: str, come: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while not come():
            assert self.process.poll() is None, f"ended without {what}:\n{self.shown}"
            assert time.monotonic() < end, f"no {what} in time:\n{self.shown}"
            time.sleep(0.1)

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question, lambda: question in self.shown)
        os.write(self.master, f"{text}\n".encode())

    def end(self) -> int:
        code = self.process.wait(DEADLINE_SECONDS)
        self.reader.join(DEADLINE_SECONDS)
        return code

    def kill(self) -> None:
        self.process.kill()
        self.end()


Type = Callable[..., Terminal]


@pytest.fixture
def terminal(home: Home, tmp_path: Path) -> Iterator[Type]:
    opened: list[Terminal] = []

    def open_one(*arguments: str) -> Terminal:
        opened.append(Terminal(tmp_path, home.settings.home, *arguments))
        return opened[-1]

    yield open_one
    for each in opened:
        each.kill()
        os.close(each.master)


@pytest.fixture
def preset(tiny: Tiny, tmp_path: Path) -> tuple[str, ...]:
    """Arguments of another tiny run than the one that the home has."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny(seed=5).to_yaml())
    return ("run", "--preset", str(path), "--from", "scratch")


def others(settings: Settings) -> list[Workspace]:
    """The runs beside the one that the home came with."""
    return [Workspace(f) for f in sorted(settings.workspaces.iterdir()) if f.name != "tiny"]


@pytest.fixture
def cut_off(home: Home, tiny: Tiny) -> Home:
    """The home with run `other`, whose version 2 was being judged, as a first champion."""
    workspace = create_workspace(home.settings, "other", tiny(seed=5))
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, home.settings)
    home.release.register(workspace.candidate, "other", workspace.params())
    begin(home.release, 2, workspace.params().gate, "other").save(workspace.lease)
    return Home(home.settings, workspace, 2)


def judge_until_killed(home: Home) -> None:
    """Every episode is played and nothing of it written."""
    gate._write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    STAGES["gate"](home.workspace, home.settings)


@pytest.mark.long
@pytest.mark.services
def test_a_run_killed_while_judged_is_judged_against_the_champion_that_came_meanwhile(
    cut_off: Home, preset: tuple[str, ...], terminal: Type
) -> None:
    release, ledger = cut_off.release, cut_off.release.ledger
    judging = forked(judge_until_killed, cut_off)
    judging.join()
    assert judging.exitcode == -signal.SIGKILL
    assert ledger.version(2).incumbent_digest is None  # it was judged as a first champion
    release.approve(1, "ann", "read it")

    again = terminal(*preset, "--approve", "auto")
    again.answer("Resume it? [Y/n]: ", "y")
    code = again.end()
    assert "run other has the same parameters and is unfinished" in again.shown
    assert "7 of 7 generations done" in again.shown
    assert others(cut_off.settings) == [cut_off.workspace]
    assert cut_off.workspace.outcome.exists()

    verdict, champion = recorded(release, 2), ledger.champion()
    assert verdict is not None
    assert code == VERDICT_EXIT[verdict.verdict], again.shown
    assert champion is not None
    assert champion.version == 1
    assert (verdict.attempt, verdict.incumbent_digest) == (1, champion.digest)
    assert ledger.version(2).incumbent_generation == 1
    actions = [event.action for event in ledger.events(2)]
    assert actions[1:5] == ["begin_evaluation", "cut_off", "resume_evaluation", "record_verdict"]
    ledger.verify()


def test_at_the_terminal_no_begins_a_new_run(
    home: Home, preset: tuple[str, ...], tiny: Tiny, terminal: Type
) -> None:
    begun = create_workspace(home.settings, "begun", tiny(seed=5))
    shown = terminal(*preset)
    shown.answer("Resume it? [Y/n]: ", "n")
    shown.wait_for("new run", lambda: len(others(home.settings)) == 2)
    assert "a new run begins" in shown.shown
    assert {w.name.split("-")[0] for w in others(home.settings)} == {"begun", "tiny"}
    assert not (begun.root / "run.log").exists()


def test_a_verdict_from_before_the_cut_is_never_recorded(cut_off: Home) -> None:
    """The gate had judged it, as a first champion, and was killed before it said so."""
    release, workspace = cut_off.release, cut_off.workspace
    before = Lease.load(workspace.lease)
    STAGES["gate"](workspace, cut_off.settings)
    release.approve(1, "ann", "read it")
    lease = begin(release, 2, workspace.params().gate, "other")
    champion = release.incumbent()
    assert champion is not None
    assert (lease.attempt, lease.lease) == (before.attempt, before.lease)
    assert (before.incumbent, lease.incumbent) == (None, champion.digest)
    with pytest.raises(TransitionRefused, match="incumbent_digest should be"):
        record(release, 2, workspace.report, "other")
    verdict = judge_version(release, 2, workspace, "other", sit=STAGES["gate"])
    assert verdict.incumbent_digest == champion.digest
    assert recorded(release, 2) == verdict


def test_judging_by_hand_leaves_a_cut_off_run_to_its_resume(cut_off: Home) -> None:
    with pytest.raises(TransitionRefused, match="srghn run --resume other resumes it"):
        judge_again(cut_off.settings, 2)


def test_a_judgement_by_hand_that_was_killed_goes_on(cut_off: Home) -> None:
    release, rules = cut_off.release, cut_off.workspace.params().gate
    STAGES["gate"](cut_off.workspace, cut_off.settings)
    assert record(release, 2, cut_off.workspace.report, "other").passed
    release.ledger.mark_stale(2, who=Who("ann", "the suite changed"))
    assert begin(release, 2, rules, "other:again:2").attempt == 2  # and killed
    assert recorded(release, 2) is None
    verdict, report = judge_again(cut_off.settings, 2)
    assert verdict.attempt == 2
    assert report.is_file()
    assert release.ledger.version(2).state is State.PASSED
