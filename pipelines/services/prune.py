"""What a home no longer needs, and its removal: never what the ledger cites.

Four things grow. Workspaces: of a run that is over and whose versions are past every step that
reads one. The DVC cache: objects that no workspace that stays names. Reports and artefacts: those
that no event cites, left by a process killed between two steps. MLflow: the runs of workspaces
that go, where it is embedded; a server has its own rules. Whatever is younger than the days asked
for stays, so nothing that a run at work has just written is touched.

A plan may be hours old when a person agrees to it, so each removal is decided again: what was
stored again, cited or changed since then stays.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.runs.workspaces import Workspace
from pipelines.versions.release import Release
from serving.registry.artefacts import storing
from serving.registry.backup import kept_before
from serving.registry.states import State
from serving.settings import Settings
from srghn.errors import ConfigError, ServiceError, first_line, is_full
from srghn.yaml_files import read_yaml

#: States after which nothing reads a version's workspace again.
OVER = frozenset({State.FAILED, State.REJECTED, State.ABORTED, State.REVOKED})
DAY = 86_400.0
#: Reports and artefacts younger than this stay whatever is asked: a process stores each before it
#: writes into the ledger what cites it. So does what another process may be removing.
UNCITED_SECONDS = 3600.0
#: Each workspace is locked by an open file while it goes, and a process may have 1,024 of them.
HELD_AT_ONCE = 128
#: With fewer free bytes a database may not be able to delete anything before a file is deleted.
ROOM = 2**20
#: The workspace of a recall, whose run folder is a copy; with a dot where making it was cut off.
RECALL = re.compile(r"\.?recall-\d+")
#: What a process left that was killed while it removed a workspace.
CUT_OFF = re.compile(r"\..*\.tmp")


@dataclass(frozen=True)
class Item:
    """One thing to be removed: its kind, name and place, why, and its bytes.

    `before`: it was last changed before that time, in seconds of the epoch.
    """

    kind: str
    name: str
    why: str
    bytes: int
    path: Path = field(repr=False)
    before: float = field(repr=False)


def plan(settings: Settings, days: float) -> list[Item]:
    """What may go, of what was last changed more than `days` ago. Changes nothing."""
    release, before = Release(settings), time.time() - days * DAY
    states = _states(release)
    idle = (each for each in _all(settings) if not each.busy)
    gone = _gone(settings, idle, states, before)
    paths = {item.path for item in gone}
    stay = [each for each in _all(settings) if each.root not in paths]
    return [
        *(item for item in gone if item.kind == "workspace"),
        *_cut_off(settings, before),
        *_cache(settings, stay, before),
        *_stores(release, stay, before),
        *(item for item in gone if item.kind == "MLflow run"),
    ]


def prune(settings: Settings, items: Sequence[Item]) -> list[Item]:
    """Remove of a plan what may still go now, and return that."""
    if not items:
        return []
    release, before = Release(settings), max(item.before for item in items)
    planned = {(item.kind, item.path) for item in items}
    idle = [each for each in _all(settings) if ("workspace", each.root) in planned]
    gone = []
    for start in range(0, len(idle), HELD_AT_ONCE):
        gone += _over(release, idle[start : start + HELD_AT_ONCE], before)
    stay = _all(settings)
    for item in _cut_off(settings, before):
        if (item.kind, item.path) in planned:
            shutil.rmtree(item.path)
            gone.append(item)
    for item in _cache(settings, stay, before):
        if (item.kind, item.path) in planned:
            item.path.unlink(missing_ok=True)
            gone.append(item)
    uncited = [i for i in _stores(release, stay, before) if (i.kind, i.path) in planned]
    return [*gone, *(item for item in uncited if _remove(settings, item))]


def _over(release: Release, idle: Sequence[Workspace], before: float) -> list[Item]:
    """Remove those of these workspaces that may still go, with their MLflow runs; what went."""
    settings = release.settings
    with ExitStack() as held:
        states = _states(release)
        gone = _gone(settings, [each for each in idle if _take(held, each)], states, before)
        runs = [item for item in gone if item.kind == "MLflow run"]
        if shutil.disk_usage(settings.home).free < ROOM:
            _remove_files(runs)
        _forget(settings, [item.name for item in runs])
        _remove_files(runs)
        for item in gone:
            if item.kind == "workspace":
                _remove_whole(item.path)
    return gone


def _remove_files(runs: Sequence[Item]) -> None:
    for item in runs:
        shutil.rmtree(item.path, ignore_errors=True)


def _remove_whole(path: Path) -> None:
    """Remove a workspace: half of one would be taken for a run that is still to be delivered."""
    try:
        aside = tempfile.mkdtemp(".tmp", ".", path.parent)
    except OSError as error:
        if not is_full(error):
            raise
        aside = str(path)  # there is no room to be careful
    else:
        path.rename(Path(aside) / path.name)
    shutil.rmtree(aside)


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
    found = (path for path in sorted(settings.workspaces.glob("*")) if path.is_dir())
    return [Workspace(path) for path in found if not CUT_OFF.fullmatch(path.name)]


def _states(release: Release) -> dict[str, set[State]]:
    """Run -> the states of its versions, as far as they say whether anything goes on."""
    states: dict[str, set[State]] = {}
    for version in release.ledger.versions():
        over = version.state is State.RETIRED and version.quarantined  # else it may be recalled
        state = State.REVOKED if over else version.state
        states.setdefault(version.run_id, set()).add(state)
    return states


def _gone(
    settings: Settings, idle: Iterable[Workspace], states: Mapping[str, set[State]], before: float
) -> list[Item]:
    """Those of these workspaces that nobody goes on with, and their MLflow runs."""
    undone, _ = kept_before(settings.database_url, settings.home)
    return [i for each in idle for i in _workspace(settings, each, states, before, undone)]


def _workspace(
    settings: Settings,
    workspace: Workspace,
    states: Mapping[str, set[State]],
    before: float,
    undone: float,
) -> Iterator[Item]:
    """A workspace that nobody goes on with, and its MLflow run; nothing if it must stay.

    `undone`: when a restore last undid steps, which may have made versions of runs until then.
    """
    root, found = workspace.root, states.get(workspace.name, set())
    over = found <= OVER and (workspace.outcome.exists() or bool(found))
    changed = _changed(root)
    cited = not found and changed <= undone
    if not over or cited or changed > before or not _delivered(workspace):
        return
    why = f"its run is over: {', '.join(sorted(found)) or 'no version'}"
    yield Item("workspace", workspace.name, why, size(root), root, before)
    note = root / "tracking.json"
    if settings.mlflow_is_embedded and note.exists():
        run = json.loads(note.read_text(encoding="utf-8"))["mlflow_run_id"]
        kept = settings.mlflow / "artifacts" / str(run)
        if run:
            yield Item("MLflow run", str(run), f"of {workspace.name}", size(kept), kept, before)


def _cut_off(settings: Settings, before: float) -> Iterator[Item]:
    """Workspaces whose removal began and was killed."""
    before = min(before, time.time() - UNCITED_SECONDS)
    for path in sorted(settings.workspaces.glob("*")):
        if CUT_OFF.fullmatch(path.name) and path.stat().st_mtime <= before:
            yield Item("workspace", path.name, "its removal was cut off", size(path), path, before)


def _take(held: ExitStack, workspace: Workspace) -> bool:
    """Work in a workspace until `held` ends; False while another process does."""
    with suppress(ConfigError, FileNotFoundError):
        held.enter_context(workspace.held())
        return True
    return False


def _remove(settings: Settings, item: Item) -> bool:
    """Remove a report or an artefact, unless it was stored again meanwhile; whether it is gone."""
    folder = item.path.parent
    with (
        tempfile.TemporaryDirectory(prefix=".put.", dir=folder) as aside,
        storing(settings.home),
        suppress(FileNotFoundError),
    ):
        if _changed(item.path) <= item.before:
            item.path.rename(Path(aside) / item.path.name)
            return True
    return False


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
            name = path.parent.name + path.name
            yield Item("cache", name, "no run refers to it", size(path), path, before)
    for path in sorted((cache / "runs").glob("??/*/*")):
        if path.stat().st_mtime <= before and not _named(cache, path) <= kept:
            why = "its run no longer exists"
            yield Item("cache", path.name[:12], why, size(path), path, before)


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


def _stores(release: Release, stay: Sequence[Workspace], before: float) -> Iterator[Item]:
    """Reports and artefacts that nothing cites."""
    settings, before = release.settings, min(before, time.time() - UNCITED_SECONDS)
    undone, _ = kept_before(settings.database_url, settings.home)
    for folder, kind, cited in (
        (settings.reports, "report", _cited_reports(release)),
        (settings.artefacts, "artefact", _cited_artefacts(release, stay)),
    ):
        for path in sorted(folder.glob("*")):
            if path.name not in cited and undone < _changed(path) <= before:
                why = "the ledger does not refer to it"
                yield Item(kind, path.name[:12], why, size(path), path, before)


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


def _forget(settings: Settings, runs: Sequence[str]) -> None:
    """Delete runs of the embedded MLflow; raises `ServiceError` if it fails.

    By what `mlflow gc` itself calls, since nothing public deletes a run for good. `mlflow gc
    --run-ids` also deletes all experiments and models that users have put in MLflow's trash.
    """
    from pipelines.tracking.mlflow_run import connect

    if not runs:
        return
    try:
        from mlflow.exceptions import MlflowException

        store = connect(settings)._tracking_client.store
        for run in runs:
            try:
                store._hard_delete_run(run)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # removed by hand before
                    raise
    except Exception as error:
        said = first_line(error)
        raise ServiceError(f"MLflow could not remove {len(runs)} runs: {said}") from error
    with suppress(sqlite3.Error), closing(sqlite3.connect(settings.mlflow / "mlflow.db")) as file:
        file.execute("VACUUM")


def _changed(path: Path) -> float:
    """When a file, or any file in a folder, was last written.

    Not the lock, nor the folders themselves, unless there is no file: to look whether a run is at
    work changes those.
    """
    times = []
    for each in path.rglob("*") if path.is_dir() else ():
        with suppress(OSError):
            if each.name != ".lock" and not each.is_dir():
                times.append(each.lstat().st_mtime)
    return max(times, default=path.stat().st_mtime)
