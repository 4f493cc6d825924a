"""What `srghn doctor` looks at: what is installed, reachable, writable and in order."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from pipelines.runs import schedules
from pipelines.runs.workspaces import require_writable
from pipelines.services.prefect_server import running_server
from pipelines.services.processes import require_answer
from pipelines.services.prune import human, sizes
from pipelines.services.up import worker_is_up
from pipelines.versions.release import Release
from serving.registry.faults import LedgerReadOnly, fault
from serving.registry.names import DEFAULT
from serving.settings import Settings
from srghn.errors import ServiceError, SrghnError

REQUIRED = (
    "torch", "gymnasium", "onnxruntime", "prefect", "dvc", "mlflow", "great-expectations", "fastapi"
)  # fmt: skip
OPTIONAL = {"box2d": "box2d", "mujoco": "mujoco", "distributed": "dask", "psycopg": "postgres"}
LEAST_FREE_GIB = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` is what to do where it is not ok."""

    what: str
    found: str
    ok: bool = True
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    findings = [_package(name) for name in REQUIRED]
    findings += [_extra(name, extra) for name, extra in OPTIONAL.items()]
    ledger = _try("ledger", lambda: _ledger(settings))
    findings += [
        _try("home folder", lambda: _home(settings)),
        _try("disk", lambda: _disk(settings)),
        ledger,
    ]
    rest = [
        _try("champion", lambda: _champion(settings)),
        _try("reports", lambda: _reports(settings)),
        _try("artefact store", lambda: _store(settings)),
        _try("MLflow mirror", lambda: _outbox(settings)),
        _try("MLflow", lambda: _mlflow(settings)),
        _try("Prefect server", lambda: _prefect(settings)),
        _try("schedules", lambda: _schedules(settings)),
        _try("engine", lambda: _engine(settings)),
    ]
    findings += [
        Finding(each.what, "not known", ok=False, remedy="see the ledger")
        if not each.ok and each.found == ledger.found
        else each
        for each in rest
    ]
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(
            name, "absent", ok=False, remedy="make install, or pip install 'srghn[pipeline]'"
        )


def _extra(name: str, extra: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, f"absent; optional: pip install 'srghn[{extra}]'")


def _try(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except SrghnError as error:
        said = str(error)
    except Exception as error:  # noqa: BLE001  MLflow's and others': what is broken is shown
        said = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return Finding(what, said, ok=False, remedy="see the message")


def _home(settings: Settings) -> Finding:
    require_writable(settings.home)
    free = shutil.disk_usage(settings.home).free / 2**30
    return Finding(
        "home folder",
        f"{settings.home}, {free:.0f} GiB free",
        ok=free >= LEAST_FREE_GIB,
        remedy="free space on this disk",
    )


def _disk(settings: Settings) -> Finding:
    found = sorted(sizes(settings).items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {human(count)}" for name, count in found) or "empty"
    return Finding("disk", f"{shown}; srghn prune shows what can be removed")


def _ledger(settings: Settings) -> Finding:
    ledger = Release(settings).ledger
    events, seen = ledger.verify(), ledger.checkpoint()
    database = ledger.database()
    with database.write():
        pass  # it changes nothing, and fails where another process holds the lock
    # a file that cannot be written is opened for reading, and SQLite locks it all the same
    places = (database.file, database.file.parent) if database.file else ()
    for place in places:
        if not os.access(place, os.W_OK):
            raise fault(database.name, LedgerReadOnly, f"this user cannot write {place}")
    signed = f"signed up to event {seen.seq}" if seen else "nothing signed yet"
    return Finding("ledger", f"{events} events, hash chain whole, {signed}")


def _champion(settings: Settings) -> Finding:
    release, found = Release(settings), []
    for policy in release.ledger.policies():
        champion = release.incumbent(policy.name)
        if champion is not None:
            release.store.load(champion.digest).check_golden()
            of = "" if policy.name == DEFAULT else f" of policy {policy.name}"
            found.append(f"version {champion.version}{of}")
    if not found:
        return Finding("champion", "none yet")
    return Finding("champion", f"{', '.join(found)}, digest and golden outputs match")


def _reports(settings: Settings) -> Finding:
    ledger = Release(settings).ledger
    judged = sum(version.report_digest is not None for version in ledger.versions())
    wrong = ledger.report_problems(here=bool(settings.store_url))
    if not wrong:
        return Finding("reports", f"{judged}, each with the digests in the ledger")
    return Finding(
        "reports",
        f"missing or changed: {'; '.join(wrong)}",
        ok=False,
        remedy="restore that folder from a backup",
    )


def _store(settings: Settings) -> Finding:
    from pipelines.versions.stored import Stored

    if not settings.store_url:
        return Finding("artefact store", "the home alone")
    absent, count = Stored(Release(settings)).absent()
    if not absent:
        return Finding("artefact store", f"{settings.store_url}, {count} folders, none missing")
    return Finding(
        "artefact store",
        f"missing in {settings.store_url}: {', '.join(absent)}",
        ok=False,
        remedy="srghn store push, on the host that has them",
    )


def _outbox(settings: Settings) -> Finding:
    pending = len(Release(settings).ledger.pending())
    return Finding(
        "MLflow mirror",
        "up to date" if not pending else f"{pending} events to deliver",
        ok=pending == 0,
        remedy="srghn sync",
    )


def _prefect(settings: Settings) -> Finding:
    url = running_server(settings)
    return Finding("Prefect server", url or "none running; srghn up starts one")


def _schedules(settings: Settings) -> Finding:
    found, now = schedules.listed(settings), datetime.now(UTC)
    active = [each for each in found if not each.paused]
    shown = f"{len(found)}, {len(found) - len(active)} of them paused"
    if active and not worker_is_up(settings):
        remedy = "srghn up, or srghn worker"
        return Finding("schedules", f"{shown}; nothing fires them", ok=False, remedy=remedy)
    late = [f"{each.name}: {each.note}" for each in active if each.late(now)]
    if late:
        said = f"due for more than a day: {'; '.join(late)}"
        return Finding("schedules", said, ok=False, remedy="see to that run, and worker.log")
    return Finding("schedules", shown)


def _mlflow(settings: Settings) -> Finding:
    if settings.mlflow_uri.startswith(("http://", "https://")):
        require_answer("MLflow server", settings.mlflow_uri, "SRGHN_MLFLOW_URI")
    shown = "embedded" if settings.mlflow_is_embedded else settings.mlflow_uri
    release = Release(settings)
    if not release.ledger.count():
        return Finding("MLflow", shown)
    heads = release.mirror().heads()
    release.ledger.compare_heads(heads)
    return Finding("MLflow", f"{shown}; the history is what its {len(heads)} signed heads say")


def _engine(settings: Settings) -> Finding:
    if settings.engine != "dask":
        return Finding("engine", settings.engine)
    parts = urlsplit(settings.dask_address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5.0).close()
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"no Dask scheduler answers at {settings.dask_address or 'no address'} ({error}); "
            "start dask scheduler, and set SRGHN_DASK_ADDRESS to its address"
        ) from error
    return Finding("engine", f"Dask at {settings.dask_address}")
