"""The folder a pipeline works in: the project's root, or an isolated workspace of one run.

A workspace is a DVC repository of its own that shares one cache, so two runs at once never meet,
a run never touches a checked-out tree, and what lands is its `dvc.lock`.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import yaml

from pipelines.progress import console
from pipelines.runs.repro import DVC_FAILED, FULL, QUIT, apart, killed_by
from pipelines.runs.target import DEFAULT_TARGET, Target
from pipelines.services.processes import IGNORES_STOP, IMPORTS, child_environment
from pipelines.versions.lease import Lease
from serving.settings import Settings
from srghn.config import RunParams, load_params
from srghn.errors import ConfigError, SrghnError
from srghn.files import atomic_write, is_locked, lock
from srghn.yaml_files import read_yaml

STAGES = ("pin", "evolve", "evaluate", "gate")
#: Signals by which a process ends itself, and none that a person sends.
CRASHES = frozenset(
    {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP}
)
#: How long a stage that Ctrl-C reached, too, has to end by itself.
STOP_SECONDS = 3.0
#: How long whoever would work in a workspace waits for another process that only looks.
LOOK_SECONDS = 1.0

#: The cache all workspaces of a home share, named from the folder this is in: a home may move.
DVC_CONFIG = """\
[core]
    no_scm = true
    analytics = false
    check_update = false
[cache]
    dir = ../../../dvc-cache
[plots]
    html_template = plots.html
"""


class StageFailed(SrghnError):
    """A stage ended with an error; its message is the stage's own."""


@dataclass(frozen=True)
class Workspace:
    """Paths of a pipeline's inputs and outputs, as named in `dvc.yaml`."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def target_file(self) -> Path:
        return self.root / "policy.json"

    @property
    def target(self) -> Target:
        """Which policy the run's candidate is for."""
        return Target.load(self.target_file)

    @property
    def isolated(self) -> bool:
        """Whether it is a run's own, written by `create_workspace`, and no checkout of a person."""
        config = self.dvc_config
        return config.exists() and "no_scm = true" in config.read_text(encoding="utf-8")

    @property
    def env_version(self) -> Path:
        return self.root / "data" / "env_version.json"

    @property
    def run(self) -> Path:
        return self.root / "data" / "run"

    @property
    def evolution_metrics(self) -> Path:
        return self.root / "data" / "evolution.json"

    @property
    def candidate(self) -> Path:
        return self.root / "data" / "candidate"

    @property
    def evaluation_metrics(self) -> Path:
        return self.root / "data" / "evaluation.json"

    @property
    def lease(self) -> Path:
        """Under which lease of the ledger, and against whom, the candidate is judged."""
        return self.root / "data" / "lease.json"

    @property
    def report(self) -> Path:
        return self.root / "data" / "report"

    @property
    def verdict_metrics(self) -> Path:
        return self.root / "data" / "verdict.json"

    @property
    def error(self) -> Path:
        """Where a failed stage leaves its one-line message for the process that started it."""
        return self.root / ".dvc" / "tmp" / "stage-error.txt"

    @property
    def dvc_config(self) -> Path:
        return self.root / ".dvc" / "config"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def imports_file(self) -> Path:
        return self.root / "imports.txt"

    @property
    def imports(self) -> str:
        """The folder of users' own environments and networks; empty where an older srghn began."""
        with suppress(FileNotFoundError):
            return self.imports_file.read_text(encoding="utf-8")
        return ""

    @property
    def outcome(self) -> Path:
        """Written last: a workspace that has it is finished."""
        return self.root / "outcome.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work here, alone; raises `ConfigError` while another process does.

        `srghn prune` may have removed the folder while this waited: the lock is then that of a file
        that is gone, and keeps nobody out.
        """
        with (self.root / ".lock").open("w", encoding="utf-8") as file:
            if not lock(file, LOOK_SECONDS):
                raise ConfigError(
                    f"another process is working on run {self.name}; wait for it, then see srghn "
                    "status"
                )
            if not _is_at(file.fileno(), self.root / ".lock"):
                raise ConfigError(
                    f"the workspace of run {self.name} was removed meanwhile; start another run: "
                    "srghn run"
                )
            yield

    @property
    def busy(self) -> bool:
        """Whether a process is at work here now."""
        try:
            return is_locked(self.root / ".lock")
        except FileNotFoundError:
            return False

    @property
    def generations_done(self) -> int:
        """Generations of the last checkpoint; 0 where there is none."""
        names = [p.name for p in (self.run / "checkpoints").glob("[0-9]*")]
        return int(max(names, default="0"))

    def params(self) -> RunParams:
        """Its parameters; refuses a suite that is only named, for DVC would not see it change."""
        gate = read_yaml(self.params_file).get("gate")
        if isinstance(gate, dict) and isinstance(gate.get("suite"), str):
            raise ConfigError(
                f"{self.params_file}: gate.suite names a file, whose changes DVC would not see; "
                f"put its contents there: srghn suite show {self.params_file}"
            )
        return load_params(self.params_file, recorded=self.isolated)

    def run_stage(self, stage: str, settings: Settings) -> None:
        """`dvc repro` of one stage; skipped by DVC when nothing it depends on changed.

        A world is pinned again in every workspace: what another one pinned, DVC would take from its
        cache of runs, and the world may have moved since. Raises `StageFailed` with the stage's
        own message.
        """
        self.error.unlink(missing_ok=True)
        if (
            self.dvc_config.read_text(encoding="utf-8") != DVC_CONFIG
        ):  # written before 0.3: with an absolute path
            write_dvc_config(self)
        # What a killed process left there blocks DVC while another process has its pid, or for good
        # where it is torn. Nothing else that writes is at work here: whoever runs a stage holds it.
        (self.root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
        command = [sys.executable, "-m", "pipelines.runs.repro", stage, str(self.error)]
        if stage == "pin":
            command.append("--no-run-cache")
        environment = child_environment(settings)
        environment.pop(IGNORES_STOP, None)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            environment[IGNORES_STOP] = "1"
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=log
            )
            code = _ended(process)
        if code == FULL:
            raise StageFailed(
                f"no room is left on the disk of {self.root}; make room (srghn prune shows what "
                f"can go), then go on with: srghn run --resume {self.name}"
            )
        if code != 0:
            said = self.error.read_text(encoding="utf-8").strip() if self.error.exists() else ""
            raise StageFailed(said or f"stage {stage} {_end(stage, code)}; its log is {self.log}")


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a stage; its exit code. On Ctrl-C it has a moment to end, too, and then must."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        raise
    finally:
        if process.poll() is None:
            process.kill()  # the stage itself sees that, and ends
            process.wait()
        console.show_cursor()  # which a bar hides, whose process was killed


def _end(stage: str, code: int) -> str:
    """How a stage ended that left no word, and what to do."""
    sign = killed_by(code)
    if sign is None:
        said = f"ended with {code}"
        return (
            said if code == DVC_FAILED else f"{said} and no word, as {QUIT} makes it{apart(stage)}"
        )
    said = f"was killed ({sign.name})"
    if sign in CRASHES:
        said += f", probably by native code of the environment{apart(stage)}"
    elif sign == signal.SIGKILL:
        said += ", probably for want of memory"
    return said


def new_run_id(name: str) -> str:
    """An id that every tool takes which is told of it: letters, digits, '.', '_' and '-'.

    `name` may be that of any file. What is left of it begins with no dot, which would hide the
    workspace, and with no dash, which `--resume` would take for an option.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")[:100] or "run"
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{name}-{stamp}-{secrets.token_hex(2)}"


def unfinished(
    settings: Settings, params: RunParams, target: Target = DEFAULT_TARGET
) -> list[Workspace]:
    """Runs of the same parameters that are begun, unfinished and not at work, latest last."""
    found = []
    for folder in settings.workspaces.glob("*"):
        workspace = Workspace(folder)
        if not workspace.params_file.is_file() or workspace.outcome.exists():
            continue
        with suppress(ConfigError):  # written by another version: not the same parameters
            same = workspace.params() == params and workspace.target == target
            if same and not workspace.busy:
                found.append(workspace)
    return sorted(found, key=_begun)


def create_workspace(
    settings: Settings, run_id: str, params: RunParams, target: Target = DEFAULT_TARGET
) -> Workspace:
    """A new workspace under the home folder with its own `params.yaml`, `dvc.yaml` and DVC setup.

    What a process left that died in here is made whole: `params.yaml` is written last. One that is
    whole stays as it is. Raises `ConfigError` if the home folder cannot be written, or while
    another process makes it.
    """
    workspace = Workspace(settings.workspaces / run_id)
    require_writable(settings.home)
    (workspace.root / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    with workspace.held():
        if workspace.params_file.is_file():
            return workspace
        write_dvc_config(workspace)
        atomic_write(workspace.root / "dvc.yaml", pipeline_definition())
        Lease(policy=target.policy).save(workspace.lease)
        target.save(workspace.target_file)
        atomic_write(workspace.imports_file, os.environ.get(IMPORTS, os.getcwd()))
        atomic_write(workspace.params_file, params.to_yaml())
    return workspace


def write_dvc_config(workspace: Workspace) -> None:
    """DVC's settings, and the page that its plots are shown in: one that needs no network."""
    page = Path(str(files("pipelines"))) / "runs" / "plots.html"
    atomic_write(workspace.dvc_config.parent / "plots.html", page.read_bytes())
    atomic_write(workspace.dvc_config, DVC_CONFIG)


def find_workspace(settings: Settings, run_id: str) -> Workspace | None:
    """The workspace of an earlier run; None where there is none."""
    workspace = Workspace(settings.workspaces / run_id)
    return workspace if workspace.params_file.is_file() else None


def _begun(workspace: Workspace) -> float:
    """When a run began: its parameters are written last, and never again."""
    return workspace.params_file.stat().st_mtime


def open_workspace(settings: Settings, run_id: str) -> Workspace:
    """The workspace of an earlier run; raises `ConfigError` naming those there are."""
    workspace = find_workspace(settings, run_id)
    if workspace is None:
        known = (Workspace(folder) for folder in settings.workspaces.glob("*"))
        begun = sorted((each for each in known if each.params_file.is_file()), key=_begun)
        recent = ", ".join(each.name for each in begun[-3:]) or "none yet"
        raise ConfigError(f"no run {run_id!r} under {settings.workspaces}; latest: {recent}")
    _add_lease(workspace)
    return workspace


def _add_lease(workspace: Workspace) -> None:
    """Give a workspace made before 0.3 its lease, and make its gate depend on it.

    Its other stages stay as they are, or DVC would run them again.
    """
    if workspace.lease.exists():
        return
    Lease().save(workspace.lease)
    definition = workspace.root / "dvc.yaml"
    if definition.is_file():
        data = yaml.safe_load(definition.read_text(encoding="utf-8"))
        data["stages"]["gate"] = yaml.safe_load(pipeline_definition())["stages"]["gate"]
        atomic_write(definition, yaml.safe_dump(data, sort_keys=False))


def require_writable(home: Path) -> None:
    """Make the home folder and try to write in it; raises `ConfigError` naming it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".write-test-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"the home folder {home} cannot be written ({error.strerror}); "
            "set SRGHN_HOME to a folder that can"
        ) from error


def pipeline_definition() -> str:
    """The text of `dvc.yaml`: from the checkout's root, or as the wheel carries it."""
    package = Path(str(files("pipelines")))
    for path in (package.parent / "dvc.yaml", package / "dvc.yaml"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ConfigError("dvc.yaml is missing from the installation; install srghn again")
