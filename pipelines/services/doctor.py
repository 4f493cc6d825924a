"""What `srghn doctor` looks at: what is installed, reachable, writable and in order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pipelines.runs.workspaces import require_writable
from pipelines.services.prefect_server import running_server
from pipelines.versions.release import Release
from serving.settings import Settings
from srghn.errors import SrghnError

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
    findings += [
        _try("home folder", lambda: _home(settings)),
        _try("ledger", lambda: _ledger(settings)),
        _try("champion", lambda: _champion(settings)),
        _try("reports", lambda: _reports(settings)),
        _try("MLflow mirror", lambda: _outbox(settings)),
        _try("Prefect server", lambda: _prefect(settings)),
    ]
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "absent", ok=False, remedy="make install, or pip install srghn")


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
        return Finding(what, said, ok=False, remedy="as the message says")


def _home(settings: Settings) -> Finding:
    require_writable(settings.home)
    free = shutil.disk_usage(settings.home).free / 2**30
    return Finding(
        "home folder",
        f"{settings.home}, {free:.0f} GiB free",
        ok=free >= LEAST_FREE_GIB,
        remedy="make room on this disk",
    )


def _ledger(settings: Settings) -> Finding:
    ledger = Release(settings).ledger
    events, seen = ledger.verify(), ledger.checkpoint()
    signed = f"signed up to event {seen.seq}" if seen else "nothing signed yet"
    return Finding("ledger", f"{events} events, hash chain whole, {signed}")


def _champion(settings: Settings) -> Finding:
    release = Release(settings)
    champion = release.incumbent()
    if champion is None:
        return Finding("champion", "none yet")
    release.store.load(champion.digest).check_golden()
    return Finding("champion", f"version {champion.version}, digest and golden outputs match")


def _reports(settings: Settings) -> Finding:
    ledger = Release(settings).ledger
    judged = sum(version.report_digest is not None for version in ledger.versions())
    wrong = ledger.report_problems()
    if not wrong:
        return Finding("reports", f"{judged}, each with the digests in the ledger")
    return Finding(
        "reports",
        f"missing or changed: {'; '.join(wrong)}",
        ok=False,
        remedy="restore that folder from a backup, or judge those versions again",
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
    return Finding("Prefect server", url or "none up; commands start one when they need it")
