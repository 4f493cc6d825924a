"""What MLflow costs a run: CPU seconds of delivery, and seconds that the run waits for it.

    python -m tests.benchmarks.tracking_cost [--generations 2500]

One evolution run, through DVC in its own process as always, while this process delivers every few
seconds; a finished database is used, since its migrations happen once in a home's life. Delivery is
beside the run, not in it: what it adds to the run's time is what is left to do when the run ends,
and, where no core is free, its CPU time. Both are printed as shares of the run's time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from pipelines.runs.presets import load_preset
from pipelines.runs.workspaces import create_workspace
from pipelines.tracking.delivery import deliver, delivering
from pipelines.tracking.mlflow_run import connect
from serving.settings import Settings
from srghn.config import with_overrides
from srghn.quiet import be_quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=2500)
    chosen = parser.parse_args()
    be_quiet()
    with tempfile.TemporaryDirectory(prefix="srghn-tracking-") as folder:
        settings = Settings(home=Path(folder)).resolved()
        imported = time.process_time()
        connect(settings).search_experiments()
        imported = time.process_time() - imported
        overrides = [f"evolution.generations={chosen.generations}"]
        params = with_overrides(load_preset("cartpole-switch"), overrides)
        workspace = create_workspace(settings, "run", params)
        workspace.run_stage("pin", settings)
        began, cpu = time.perf_counter(), time.process_time()
        with delivering(workspace, settings):
            workspace.run_stage("evolve", settings)
        ran = time.perf_counter() - began
        delivery = deliver(workspace, settings, finished=True)
        waited = time.perf_counter() - began - ran
        cpu = time.process_time() - cpu
    assert delivery.failure is None, delivery.failure
    print(f"run: {ran:.1f} s, {delivery.generations} generations")  # noqa: T201
    print(f"  delivery used {cpu:.2f} s of CPU, {cpu / ran:.1%} of the run's time")  # noqa: T201
    print(f"  the run waited {waited:.2f} s at its end, {waited / ran:.1%}")  # noqa: T201
    print(f"  once a process: {imported:.1f} s of CPU to import MLflow and migrate")  # noqa: T201


if __name__ == "__main__":
    main()
