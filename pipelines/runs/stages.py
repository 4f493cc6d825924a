"""The stages of the pipeline as plain functions: paths in, paths out, nothing else touched.

`dvc.yaml` runs them as `python -m pipelines.runs.stages NAME` in a workspace's root; Prefect runs
the same through DVC. Each may be killed at any moment and started again.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from pipelines.progress import REFRESH_SECONDS, bar, share_bar, spinner
from pipelines.runs.elsewhere import explained
from pipelines.runs.prepare import find_founder, pin_for
from pipelines.runs.repro import FULL
from pipelines.runs.workspaces import Workspace
from pipelines.services.processes import IGNORES_STOP, extend_import_path
from pipelines.versions.lease import Lease
from serving.settings import Settings, load_settings
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams
from srghn.envs import EnvVersion, verify
from srghn.errors import SrghnError, is_full, one_line
from srghn.files import atomic_write, canonical_json, sha256_bytes
from srghn.parents import die_with_parent
from srghn.quiet import be_quiet

#: Networks that are known to be exported as they are.
READY_MADE = "srghn.policies:"


def pin(workspace: Workspace, settings: Settings) -> None:
    """Pin the environment version that the parameters describe, and keep it in the home folder."""
    from pipelines.runs.worlds import keep

    version = pin_for(settings, workspace.params(), lambda note: _say(f"note: {note}"))
    version.save(workspace.env_version)
    keep(settings, version)


def evolve(workspace: Workspace, settings: Settings) -> None:
    """Evolve in the sandbox, or resume from the last checkpoint.

    DVC keeps `data/run` between runs of the stage. What is there for other parameters, which DVC
    calls for when they changed, belongs to another run and makes room. Raises
    `FingerprintMismatch` where the installed world is no longer the pinned one.
    """
    from srghn.evaluation.several import make_run_evaluator
    from srghn.evolution.ending import ended
    from srghn.evolution.loop import evolve as run_evolution
    from srghn.evolution.metrics import GenerationRecord

    params, version = workspace.params(), EnvVersion.load(workspace.env_version)
    verify(version)
    founder = find_founder(params, version, settings)
    if not params.network.module.startswith(READY_MADE):
        from srghn.candidates.check import check_network

        with spinner("export the network"):
            said = check_network(params, version)
        for note in said:
            _say(f"note: {note}")
    _make_room(workspace, params, version)
    with (
        make_run_evaluator(settings, version, params) as evaluator,
        bar("evolve", params.evolution.generations) as update,
    ):
        first, shown, warned = founder.generation + 1 if founder else 0, 0.0, False

        def tell(record: GenerationRecord) -> None:
            nonlocal shown, warned
            if record.best == -math.inf and record.first_crash and not warned:
                said = " ".join(record.first_crash.split())
                _say(f"warning: all of generation {record.generation} crashed; the first: {said}")
                warned = True
            done, now = record.generation - first + 1, time.monotonic()
            if now - shown >= REFRESH_SECONDS or done == record.total:
                note = f"{record.mode}  best {record.best:.1f}  rate {record.rate:.3f}"
                note += f"  {record.crashes} crashed" if record.crashes else ""
                update(done, note)
                shown = now

        run_evolution(
            params, version, evaluator, workspace.run, on_generation=tell, founder=founder
        )
    if end := ended(workspace.run):
        _say(str(end))
    shutil.copyfile(workspace.run / "metrics.json", workspace.evolution_metrics)


def evaluate(workspace: Workspace, settings: Settings) -> None:
    """Play the finalists again on fresh seeds and freeze the best as the candidate.

    Where the gate rules name a suite, its cells are played; else the environment's own.
    """
    from regression_suite.suite import chosen_cells
    from srghn.candidates.choose import choose_finalist
    from srghn.candidates.individual import freeze_finalist
    from srghn.evaluation.base import make_evaluator
    from srghn.evolution.run import load_run

    run, params = load_run(workspace.run), workspace.params()
    verify(run.version)
    with (
        make_evaluator(settings, run.version, params.network) as evaluator,
        share_bar("re-test finalists") as progress,
    ):
        cells = chosen_cells(run.version, run.mode, params.gate)
        choice = choose_finalist(run, evaluator, params.evaluate, progress, cells)
    with spinner("freeze the candidate"):
        candidate = freeze_finalist(run, choice, workspace.candidate)
    named = {"candidate": candidate.digest, "env_fingerprint": candidate.env_fingerprint}
    metrics = {**choice.validation, "finalist": choice.row, **named}
    atomic_write(workspace.evaluation_metrics, json.dumps(metrics, indent=1))


def gate(workspace: Workspace, settings: Settings) -> None:
    """Judge the candidate under its lease, against the incumbent it names; write the report.

    Without a run's folder, as for a candidate that was made by hand, its tables count as missing.
    """
    from regression_suite.gate import judge
    from serving.registry.artefacts import store_of

    lease, candidate = Lease.load(workspace.lease), Candidate.load(workspace.candidate)
    store = store_of(settings)
    with share_bar("gate") as progress:
        verdict = judge(
            workspace.candidate,
            EnvVersion.load(workspace.env_version),
            lease.mode or candidate.mode,
            workspace.params().gate,
            workspace.report,
            incumbent_digest=lease.incumbent,
            incumbent_dir=store.path(lease.incumbent) if lease.incumbent else None,
            run_dir=workspace.run if workspace.run.is_dir() else None,
            attempt=lease.attempt,
            history=lease.history,
            lease=lease.lease,
            tried=lease.tried,
            recalled=lease.recalled,
            approval=lease.approval,
            suites=settings.home / "expectations",
            progress=progress,
        )
    metrics = {
        "passed": verdict.passed,
        "env_fingerprint": verdict.env_fingerprint,
        "checks": {c.name: c.value for c in verdict.checks if c.value is not None},
    }
    atomic_write(workspace.verdict_metrics, json.dumps(metrics, indent=1, default=float))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _make_room(workspace: Workspace, params: RunParams, version: EnvVersion) -> None:
    """Remove a run of other parameters or of another world; one of these goes on."""
    from srghn.evolution.run import RECORD, SECTIONS, read_record

    if not (workspace.run / RECORD).exists():
        return
    record = read_record(workspace.run)
    wanted = params.model_dump(mode="json", include=SECTIONS)
    same = sha256_bytes(canonical_json(record["params"])) == sha256_bytes(canonical_json(wanted))
    if not same or record["fingerprint"] != version.fingerprint:
        shutil.rmtree(workspace.run)


#: What takes seconds to import, done under a spinner before the stage begins.
HEAVY = {
    "pin": ("srghn.envs.pinning",),
    "evolve": ("srghn.evolution.loop",),
    "evaluate": ("srghn.evolution.loop", "srghn.candidates.individual"),
    "gate": ("regression_suite.gate",),
}
STAGES: dict[str, Callable[[Workspace, Settings], None]] = {
    "pin": pin,
    "evolve": evolve,
    "evaluate": evaluate,
    "gate": gate,
}


def main(name: str) -> int:
    """Run one stage in the current folder; an error is one line, left for the flow too.

    What stdout is given to, a workspace's log, gets the traceback of an error that is none of a
    user's, and where the process stood when native code ended it. Ctrl-C gives 130 and no word: who
    started the stage got it, too. A command that ignores it, as one in the background of a script
    does, has stages that ignore it.
    """
    faulthandler.enable(sys.stdout)
    be_quiet()
    die_with_parent()
    extend_import_path()
    workspace = Workspace(Path.cwd())
    try:
        if IGNORES_STOP not in os.environ:
            signal.signal(signal.SIGINT, _stop)
        with spinner(f"{name}: loading"):
            for module in HEAVY[name]:
                import_module(module)
        STAGES[name](workspace, load_settings())
    except SrghnError as error:
        _leave(workspace, name, explained(str(error), str(workspace.root)))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  a bug, of srghn or of code that it was given
        if is_full(error):
            with suppress(OSError):  # no room for this either; the exit code says it
                _leave(workspace, name, "no room is left on the disk")
            return FULL
        traceback.print_exc(file=sys.stdout)
        where = f"; its traceback is in {workspace.log}" if workspace.isolated else ""
        _leave(workspace, name, f"{type(error).__name__}: {one_line(error)}{where}")
        return 1
    return 0


def _stop(number: int, frame: object) -> None:
    """Ctrl-C, once: a second one would cut off what the first one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _leave(workspace: Workspace, name: str, said: str) -> None:
    """Say why a stage ends: in a run's workspace in its log, for who started it tells the rest."""
    (sys.stdout if workspace.isolated else sys.stderr).write(f"{name}: {said}\n")
    if workspace.error.parent.is_dir():
        atomic_write(workspace.error, said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
