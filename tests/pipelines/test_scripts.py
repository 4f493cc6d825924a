"""What scripts rely on: JSON for refusals too, one record a line, no traceback, early refusals."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands import complete
from pipelines.lab.experiments.catalogue import EXPERIMENTS
from pipelines.lab.names import EXPERIMENTS as NAMES
from pipelines.services.processes import free_port
from tests.conftest import Srghn
from tests.pipelines.conftest import Home

HEAVY = ("torch", "prefect.server", "mlflow", "great_expectations", "dvc", "gymnasium")


def shell(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A line for `sh`, in which `srghn` is ours."""
    srghn = f"{shlex.quote(sys.executable)} -m pipelines.cli"
    return subprocess.run(
        ["sh", "-c", command.replace("srghn", srghn)],
        env={**os.environ, "SRGHN_HOME": str(home)},
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def environment(home: Home) -> dict[str, str]:
    return {"SRGHN_HOME": str(home.settings.home)}


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("run --preset cartpol", "did you mean 'cartpole'?"),
        ("run --set evolution.generation=3", "did you mean 'generations'?"),
        ("schedule add nightly --cron 3am", "expected five fields"),
        ("schedule add nightly --cron @daily", "expected five fields"),
        ("schedule add n --cron '0 3 * * 2' --timezone Europe/Berln", "Europe/Berln"),
        ("schedule add n --cron '0 3 * * 2' --preset cartpol", "did you mean 'cartpole'?"),
        ("experiment ablations", "did you mean 'ablation'?"),
    ],
)
def test_a_typo_is_told_before_anything_is_imported_or_started(
    command: str, hint: str, tmp_path: Path
) -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        f"sys.argv = ['srghn', *{shlex.split(command)!r}]\n"
        "try: main()\n"
        f"finally: sys.stdout.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SRGHN_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "home").exists()


def test_a_refusal_is_json_too(srghn_here: Srghn, home: Home) -> None:
    for command in (("history", "99"), ("report", "99"), ("approve", "99", "--reason", "x")):
        done = srghn_here(*command, "--json", env=environment(home))
        said = json.loads(done.stdout)["error"]
        assert done.returncode == said["exit_code"]
        assert said["message"] in done.stderr
        assert said["kind"]
        assert done.stderr.count("\n") == 1


def test_a_number_that_no_version_has_is_refused(srghn_here: Srghn, home: Home) -> None:
    done = srghn_here("history", "99", env=environment(home))
    assert done.returncode == 3
    assert "there is no version 99" in done.stderr
    assert srghn_here("history", "1", env=environment(home)).returncode == 0


def test_piped_output_is_one_record_a_line(srghn_here: Srghn, home: Home) -> None:
    long = "a reason that is longer than any terminal is wide, " * 5
    done = srghn_here("reject", "1", "--reason", long + "[bold]", env=environment(home))
    assert done.returncode == 0
    events = json.loads(srghn_here("history", "--json", env=environment(home)).stdout)
    lines = srghn_here("history", env=environment(home)).stdout.splitlines()
    assert len(lines) == len(events)
    fields = lines[-1].split("\t")
    assert fields[0] == str(events[-1]["seq"])
    assert fields[-1] == (long + "[bold]").strip()
    doctor = srghn_here("doctor", env=environment(home)).stdout.splitlines()
    assert all(line.split("\t")[0] in ("ok", "broken") for line in doctor)


def test_a_reader_that_leaves_is_no_error(home: Home) -> None:
    folder = home.settings.home
    for command in ("srghn history | head -1", "srghn history --json | head -1"):
        done = shell(command, folder)
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_reader_that_was_never_there_takes_no_traceback(
    more: tuple[str, ...], unbuffered: str, home: Home
) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "policies", *more],
        env={**os.environ, **environment(home), "PYTHONUNBUFFERED": unbuffered},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", ["srghn candidates >&-", "srghn status --json >&-"])
def test_a_closed_stdout_takes_no_traceback(command: str, home: Home) -> None:
    done = shell(command, home.settings.home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_letters_that_a_terminal_does_not_have_are_no_error(home: Home) -> None:
    reason = shlex.quote("schöner → besser")
    done = shell(
        f"PYTHONIOENCODING=ascii srghn reject 1 --reason {reason} "
        "&& PYTHONIOENCODING=ascii srghn history",
        home.settings.home,
    )
    assert done.returncode == 0, done.stderr
    assert "sch\\xf6ner" in done.stdout


@pytest.mark.parametrize("place", ["no/such/folder/report.html", "."])
def test_a_report_that_cannot_be_copied_is_a_line(
    place: str, srghn_here: Srghn, home: Home
) -> None:
    done = srghn_here("report", "1", "--out", place, env=environment(home))
    assert done.returncode == 3
    assert "cannot copy the report" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_report_says_its_path_and_digest(srghn_here: Srghn, home: Home) -> None:
    said = json.loads(srghn_here("report", "1", "--json", env=environment(home)).stdout)
    version = home.release.ledger.version(1)
    assert said["digest"] == version.report_digest
    assert Path(said["report"]).is_file()


def test_a_state_is_looked_at_before_anything_else(srghn_here: Srghn, home: Home) -> None:
    """The workspace is gone, and still the answer is about the version's state."""
    ledger = home.release.ledger
    home.release.approve(1, "cli:reviewer", "read it")
    (home.workspace.params_file).unlink()
    assert ledger.version(1).state == "CHAMPION"
    done = srghn_here("gate", "1", env=environment(home))
    assert done.returncode == 1
    assert "is CHAMPION and is not judged" in done.stderr
    ledger.close()


def test_a_canary_is_refused_for_its_state_first(srghn_here: Srghn, home: Home) -> None:
    home.workspace.params_file.unlink()
    done = srghn_here("canary", "start", "1", "--reason", "x", env=environment(home))
    assert done.returncode == 1
    assert "is PASSED and cannot become CANARY" in done.stderr


@pytest.mark.parametrize(
    ("variable", "url", "command"),
    [
        ("PREFECT_API_URL", "http://127.0.0.1:{}/api", ("worker",)),
        ("MLFLOW_URI", "http://127.0.0.1:{}", ("sync",)),
    ],
)
def test_a_server_that_does_not_answer_is_a_line(
    variable: str, url: str, command: tuple[str, ...], srghn_here: Srghn, home: Home
) -> None:
    down = {**environment(home), f"SRGHN_{variable}": url.format(free_port())}
    done = srghn_here(*command, env=down)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    findings = json.loads(srghn_here("doctor", "--json", env=down).stdout)
    name = {"PREFECT_API_URL": "Prefect server", "MLFLOW_URI": "MLflow"}[variable]
    assert [f["ok"] for f in findings if f["what"] == name] == [False]


def test_doctor_says_that_no_dask_scheduler_answers(srghn_here: Srghn, home: Home) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    down = {**environment(home), "SRGHN_ENGINE": "dask", "SRGHN_DASK_ADDRESS": address}
    findings = json.loads(srghn_here("doctor", "--json", env=down).stdout)
    (engine,) = (f for f in findings if f["what"] == "engine")
    assert not engine["ok"]
    assert address in engine["found"]


def test_completion_knows_presets_experiments_and_versions(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert complete.presets("cart") == ["cartpole-positions", "cartpole-switch", "cartpole"]
    assert complete.experiments("") == list(NAMES)
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    assert list(complete.versions("")) == [("1", "PASSED")]
    assert list(complete.versions("2")) == []
    monkeypatch.setenv("SRGHN_HOME", str(tmp_path / "none"))
    assert list(complete.versions("")) == []
    assert not (tmp_path / "none").exists()


def test_the_light_list_of_experiments_is_the_real_one() -> None:
    assert sorted(NAMES) == sorted(EXPERIMENTS)


def test_every_command_for_scripts_has_json() -> None:
    """All but those that go on until they are stopped."""
    import typer
    from typer.main import get_command

    from pipelines.cli import app

    def without(command: Any, path: tuple[str, ...]) -> list[str]:
        if hasattr(command, "commands"):
            return [w for n, c in command.commands.items() for w in without(c, (*path, n))]
        options = {option for param in command.params for option in param.opts}
        return [] if "--json" in options else [" ".join(path)]

    assert isinstance(app, typer.Typer)
    assert set(without(get_command(app), ())) <= {"serve", "up", "worker"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("approve", "2"), "Missing option '--reason'; see "),
        (("approve", "abc"), "Invalid value for 'version'"),
        (("status", "--nope"), "No such option: --nope; see "),
        (("nope",), "No such command 'nope'; see "),
    ],
)
def test_a_usage_error_is_an_error_as_any_other(
    srghn_here: Srghn, command: tuple[str, ...], said: str
) -> None:
    done = srghn_here(*command, "--json")
    told = json.loads(done.stdout)["error"]
    assert done.returncode == told["exit_code"] == 3
    assert said in told["message"]
    assert done.stderr == f"srghn: {told['message']}\n"
    done = srghn_here(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr


def test_a_group_without_a_command_shows_its_help_alone(srghn_here: Srghn) -> None:
    done = srghn_here("canary")
    assert (done.returncode, done.stderr) == (3, "")
    assert "Try an approved version" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    # the last one is longer than a buffer, which is lost with its error
    "command",
    ["status", "status --json", "--version", "--help", "params --json"],
)
def test_a_full_disk_is_one_line(command: str, unbuffered: str, tmp_path: Path) -> None:
    done = shell(f"PYTHONUNBUFFERED={unbuffered} srghn {command} > /dev/full", tmp_path / "home")
    assert done.returncode == 3
    assert done.stderr == "srghn: cannot write the output: No space left on device\n"


def test_a_refusal_is_told_though_stdout_takes_nothing(tmp_path: Path) -> None:
    done = shell("srghn approve --json > /dev/full", tmp_path / "home")
    assert done.returncode == 3
    assert done.stderr.startswith("srghn: Missing argument 'version'")
    assert done.stderr.count("\n") == 1
