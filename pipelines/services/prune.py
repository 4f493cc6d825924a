"""What a home no longer needs, and its removal: never what the ledger cites.

Four things grow. Workspaces: of a run that is over and whose versions are past every step that
reads one. The DVC cache: objects that no workspace that stays names. Reports and artefacts: those
that no event cites, left by a process killed between two steps. MLflow: the runs of workspaces
that go, where it is embedded; a server has its own rules. Whatever is younger than the days asked
for stays, so nothing that a run at work has just written is touched.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.runs.workspaces import Workspace
from pipelines.services.processes import child_environment
from pipelines.versions.release import Release
from serving.registry.states import State
from serving.settings import Settings
from srghn.errors import ConfigError, ServiceError, first_line
from srghn.yaml_files import read_yaml

#: States after which nothing reads a version's workspace again.
OVER = frozenset({State.FAILED, State.REJECTED, State.ABORTED, State.REVOKED})
DAY = 86_400.0
#: The workspace of a recall, whose run folder is a copy; with a dot where making it was cut off.
RECALL = re.compile(r"\.?recall-\d+")


@dataclass(frozen=True)
class Item:
    """One thing to be removed: its kind, name and place, why, and its bytes."""

    kind: str
    name: str
    why: str
    bytes: int
    path: Path | None = field(default=None, repr=False)


def plan(settings: Settings, days: float) -> list[Item]:
    """What may go, of what was last changed more than `days` ago. Changes nothing."""
    release, before = Release(settings), time.time() - days * DAY
    gone = list(_workspaces(release, before))
    names = {item.name for item in gone}
    stay = [w for w in _all(settings) if w.name not in names]
    return [
        *gone,
        *_cache(settings, stay, before),
        *_uncited(settings.reports, "report", _cited_reports(release), before),
        *_uncited(settings.artefacts, "artefact", _cited_artefacts(release, stay), before),
        *_mlflow(settings, gone),
    ]


def prune(settings: Settings, items: Sequence[Item]) -> None:
    """Remove what `plan` found; a workspace in which a process began meanwhile is left alone."""
    runs = [item.name for item in items if item.kind == "MLflow run"]
    if runs:
        _forget(settings, runs)
    for item in items:
        if item.path is None:
            continue
        if item.kind == "workspace":
            with suppress(ConfigError), Workspace(item.path).held():
                shutil.rmtree(item.path)
        elif item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def sizes(settings: Settings) -> dict[str, int]:
    """Bytes of each folder of the home that grows."""
    names = ("workspaces", "dvc-cache", "reports", "artefacts", "mlflow", "prefect", "experiments")
    return {name: size(settings.home / name) for name in names if (settings.home / name).is_dir()}


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder, as they are now."""
    found = 0
    for each in path.rglob("*") if path.is_dir() else (path,):
        with suppress(OSError):
            found += each.lstat().st_size if not each.is_dir() else 0
    return found


def human(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _all(settings: Settings) -> list[Workspace]:
    return [Workspace(path) for path in sorted(settings.workspaces.glob("*")) if path.is_dir()]


def _workspaces(release: Release, before: float) -> Iterator[Item]:
    states: dict[str, set[State]] = {}
    for version in release.ledger.versions():
        over = version.state is State.RETIRED and version.quarantined  # else it may be recalled
        state = State.REVOKED if over else version.state
        states.setdefault(version.run_id, set()).add(state)
    for workspace in _all(release.settings):
        found = states.get(workspace.name, set())
        if not found <= OVER or not _over(workspace, bool(found)) or workspace.busy:
            continue
        if _changed(workspace.root) <= before and _delivered(workspace):
            why = f"its run is over: {', '.join(sorted(found)) or 'no version'}"
            yield Item("workspace", workspace.name, why, size(workspace.root), workspace.root)


def _over(workspace: Workspace, judged: bool) -> bool:
    """Whether nobody would go on with the run."""
    return workspace.outcome.exists() or judged


def _delivered(workspace: Workspace) -> bool:
    """Whether MLflow has all that this run left, or there is nothing for it: a recall has no run.

    A run without a note was never delivered, as where MLflow was away all the time.
    """
    note = workspace.root / "tracking.json"
    if note.exists():
        return bool(json.loads(note.read_text(encoding="utf-8"))["finished"])
    return not workspace.run.exists() or bool(RECALL.fullmatch(workspace.name))


def _cache(settings: Settings, stay: Sequence[Workspace], before: float) -> Iterator[Item]:
    """Objects of the DVC cache that no lock file names, and what the run cache says of them."""
    cache = settings.home / "dvc-cache"
    kept = {name for workspace in stay for name in _named(cache, workspace.root / "dvc.lock")}
    for path in sorted((cache / "files" / "md5").glob("??/*")):
        if path.parent.name + path.name not in kept and path.stat().st_mtime <= before:
            yield Item(
                "cache", path.parent.name + path.name, "no run refers to it", size(path), path
            )
    for path in sorted((cache / "runs").glob("??/*/*")):
        if path.stat().st_mtime <= before and not _named(cache, path) <= kept:
            yield Item("cache", path.name[:12], "its run no longer exists", size(path), path)


def _named(cache: Path, lock: Path) -> set[str]:
    """Objects that a lock file of DVC names, and what its folders hold."""
    if not lock.is_file():
        return set()
    content = read_yaml(lock)
    stages = content.get("stages", {"one": content}).values()
    outs = [each for stage in stages for kind in ("deps", "outs") for each in stage.get(kind, [])]
    found = {str(each["md5"]) for each in outs if "md5" in each}
    for name in [each for each in found if each.endswith(".dir")]:
        folder = cache / "files" / "md5" / name[:2] / name[2:]
        if folder.is_file():
            found |= {str(each["md5"]) for each in json.loads(folder.read_bytes())}
    return found


def _uncited(folder: Path, kind: str, cited: set[str], before: float) -> Iterator[Item]:
    for path in sorted(folder.glob("*")):
        if path.name not in cited and _changed(path) <= before:
            yield Item(kind, path.name[:12], "the ledger does not refer to it", size(path), path)


def _cited_reports(release: Release) -> set[str]:
    """Reports of every verdict there ever was, not of the last ones alone."""
    ledger = release.ledger
    cited = {str(version.report_digest) for version in ledger.versions()}
    for event in ledger.events():
        if event.evidence_sha256 is not None:
            cited.add(str(ledger.evidence(event.evidence_sha256).get("report_digest")))
    return cited


def _cited_artefacts(release: Release, stay: Sequence[Workspace]) -> set[str]:
    """Candidates of every version, and the ancestors of runs that may go on."""
    cited = {version.digest for version in release.ledger.versions()}
    for workspace in stay:
        if workspace.params_file.is_file():
            with suppress(ConfigError):
                evolution = workspace.params().evolution
                cited |= {str(evolution.ancestor), *evolution.companions}
    return cited


def _mlflow(settings: Settings, gone: Sequence[Item]) -> Iterator[Item]:
    if not settings.mlflow_is_embedded:
        return
    for item in gone:
        assert item.path is not None
        note = item.path / "tracking.json"
        run = note.exists() and json.loads(note.read_text(encoding="utf-8"))["mlflow_run_id"]
        if run:
            kept = settings.mlflow / "artifacts" / str(run)
            yield Item("MLflow run", str(run), f"of {item.name}", size(kept), kept)


def _forget(settings: Settings, runs: Sequence[str]) -> None:
    """Delete runs of the embedded MLflow and their artifacts; raises `ServiceError` if it fails."""
    from pipelines.tracking.mlflow_run import connect

    try:
        client = connect(settings)
    except Exception as error:
        said = first_line(error)
        raise ServiceError(f"MLflow could not remove {len(runs)} runs: {said}") from error
    known = []
    for run in runs:
        with suppress(Exception):  # removed by hand before
            client.delete_run(run)
            known.append(run)
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", settings.mlflow_uri]
    done = subprocess.run(
        [*command, "--run-ids", ",".join(known)],
        env=child_environment(settings, {"MLFLOW_TRACKING_URI": settings.mlflow_uri}),
        capture_output=True,
        text=True,
        check=False,
    )
    if known and done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ServiceError(f"MLflow could not remove {len(known)} runs: {last}")
    with suppress(sqlite3.Error), closing(sqlite3.connect(settings.mlflow / "mlflow.db")) as file:
        file.execute("VACUUM")


def _changed(path: Path) -> float:
    """When a file, or any file in a folder, was last written.

    Not the lock, nor the folders themselves: to look whether a run is at work changes those.
    """
    times = [0.0 if path.is_dir() else path.stat().st_mtime]
    for each in path.rglob("*") if path.is_dir() else ():
        with suppress(OSError):
            if each.name != ".lock" and not each.is_dir():
                times.append(each.lstat().st_mtime)
    return max(times)
