"""Bad input to the commands: one clear line, an exit code that is not 0, nothing half-written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from serving.registry.database import Database
from serving.tokens import Tokens
from tests.conftest import Srghn

RUN = ("run", "--preset", "cartpole-switch")
#: An environment of which srghn knows no range of returns.
UNKNOWN = (
    *("--set", "env.id=gymnasium.envs.classic_control:MountainCarEnv"),
    *("--set", "env.max_episode_steps=50"),
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--preset", "cartpol-switch"), "did you mean 'cartpole-switch'"),
        ((*RUN, "--set", "evolution.generation=3"), "did you mean 'generations'"),
        ((*RUN, "--set", "evolution.generations=many"), "expected a whole number, got 'many'"),
        ((*RUN, "--set", "evolution.generations=0"), "expected at least 1, got 0"),
        ((*RUN, "--set", "generations"), "--set takes section.key=value"),
        ((*RUN, "--set", "env.id=CartPoleSwich"), "did you mean CartPoleSwitch-v1"),
        ((*RUN, "--set", "policy.module=srghn.policies:MPL"), "did you mean 'MLP'"),
        ((*RUN[:2], "cartpole", *UNKNOWN), "env.returns"),
        ((*RUN, "--set", "gate.min_return=501"), "gate.min_return: 501 lies outside"),
        ((*RUN, "--set", "canary.return_low=-9"), "the gate judges in a range of [0, 500]"),
        ((*RUN, "--from", "yesterday"), "--from takes champion, champions, scratch"),
        (("run", "--resume", "no-such-run"), "no run 'no-such-run'"),
        ((*RUN, "--resume", "one"), "run one was begun with, got --preset too"),
        (("run", "--resume", "one", "--set", "evolution.seed=1"), "got --set too"),
        (
            ("run", "--resume", "one", "--from", "scratch", "--policy", "arm", "--successor"),
            "got --from, --policy, --successor too",
        ),
        (("report", "4"), "there is no version 4"),
        (("approve", "4", "--reason", "because"), "there is no version 4"),
        (("env", "verify", "0000"), "no single version"),
        (("bench", "solve", "--limit", "inf"), "--limit takes a finite number, got inf"),
        (("watch", "set", "--run-length", "inf", "--reason", "x"), "--run-length takes a finite"),
        (("canary", "simulate", "--effect", "0.5"), "--effect 0.5 takes the returns of scenario"),
        (("canary", "simulate", "--effect", "nan"), "--effect takes a finite number, got nan"),
    ],
)
def test_a_bad_argument_is_one_line_on_stderr(
    srghn_here: Srghn, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = srghn_here(*arguments)
    assert done.returncode not in (0, 2), done.stdout
    assert said in done.stderr
    assert done.stderr.startswith("srghn: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob(".srghn/workspaces/*"))


@pytest.mark.parametrize("days", ["inf", "nan", "4000000", "1e308"])
@pytest.mark.parametrize("command", ["add", "rotate"])
def test_a_token_expires_at_a_date(srghn_here: Srghn, command: str, days: str) -> None:
    done = srghn_here("token", command, "ann", "--days", days)
    assert (done.returncode, done.stdout) == (3, "")
    assert "36500" in done.stderr


@pytest.mark.parametrize("days", [4e6, 1e308])
def test_a_token_of_no_date_from_before_is_listed(
    srghn_here: Srghn, tmp_path: Path, days: float
) -> None:
    tokens = Tokens(Database(f"sqlite:///{tmp_path / 'ledger.db'}"))
    tokens.add("ann", ["review"], days)
    done = srghn_here("token", "list", env={"SRGHN_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[-1].strip() == "never"


def test_a_home_that_cannot_be_written(srghn_here: Srghn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = srghn_here(*RUN, env={"SRGHN_HOME": str(tmp_path / "file" / "home")})
    assert done.returncode == 3
    assert "cannot be written" in done.stderr
    assert "SRGHN_HOME" in done.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_busy_port(srghn: Srghn) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = srghn("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert "Address already in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_corrupted_ledger_is_named_and_left_as_it_is(srghn_here: Srghn, tmp_path: Path) -> None:
    home = tmp_path / ".srghn"
    home.mkdir()
    garbage = bytes(range(256)) * 20
    (home / "ledger.db").write_bytes(garbage)
    for command in (("status",), ("demo",), ("serve", "--port", "0")):
        done = srghn_here(*command)
        assert done.returncode == 3
        assert "ledger.db" in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert (home / "ledger.db").read_bytes() == garbage


def test_a_usage_error_never_looks_like_an_inconclusive_gate(srghn_here: Srghn) -> None:
    assert srghn_here("gate").returncode == 3
    assert srghn_here("gate", "--no-such-option", "1").returncode == 3
