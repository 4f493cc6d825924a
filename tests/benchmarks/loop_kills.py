"""The loop unattended: each part killed with SIGKILL in turn, while clients play episodes.

    python -m tests.benchmarks.loop_kills --table docs/results/unattended.csv

Real servers on loopback: `srghn up` (Prefect server, worker, HTTP server) and an MLflow server.
Six runs are each hit by the death of one part, one is cancelled in the middle and resumed, and two
schedules for policies of different interfaces fire three times each by themselves. A browser looks
at our pages, Prefect's and MLflow's. Then every run is made once more undisturbed, beside a copy of
the home as it was, and must be the same bytes. Prints what clients saw; exit code 1 unless all of
it holds.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient

from pipelines.runs.workspaces import Workspace
from serving import runs
from serving.registry.ledger import Ledger
from serving.settings import Settings
from srghn.config import RunParams, parse_params
from srghn.envs import pin
from srghn.quiet import be_quiet
from tests.pipelines.killing import Yard, outcome
from tests.pipelines.screens import Screens
from tests.pipelines.unattended import Clients, Site, wait_until
from tests.tiny import tiny_params

STEPS = ("kills", "cancel", "schedules", "screens")
PARTS = ("worker", "engine", "Prefect server", "MLflow server", "HTTP server", "supervisor")
#: What may break a client's connection: the HTTP server's own end, and its supervisor's.
BREAKS = ("HTTP server", "supervisor")
#: Generations of a run that is hit, after how many, of one that is fired; firings of a schedule.
GENERATIONS, HIT, FIRED, FIRINGS = 240, 40, 40, 3
SCHEDULES = ("carts", "timed")
#: CartPole with one more number in its observations: the time.
WORLDS = {"carts": {}, "timed": {"wrappers": ["gymnasium.wrappers:TimeAwareObservation"]}}


@dataclass(frozen=True)
class Hit:
    """One run and what was done to it. `broken`: connections that broke from then on to its end.

    `back`: seconds until the part answered again.
    """

    run: str
    killed: str
    at_generation: int
    back: float
    ended: str
    resumed: int
    broken: int
    same_bytes: bool = False


def params(world: str, **evolution: Any) -> dict[str, Any]:
    """A run of seconds, long enough to be hit in the middle."""
    tiny = tiny_params(checkpoint_every=10, **evolution)
    gate = {
        "episodes": 100, "cell_episodes": 60, "failure_return": 1.0, "max_failure_rate": 0.1,
        "failure_margin": 0.1, "cell_failure_margin": 0.15, "tail_margin": 0.7, "min_return": 5.0,
        "min_cell_return": 5.0, "max_latency_ms": 1000.0, "perturbations": ["action_drop:0.1"],
    }  # fmt: skip
    evaluate = {"finalists": 2, "episodes": 4, "cell_episodes": 0}
    env = {**(WORLDS[world] or tiny["env"]), "max_episode_steps": 100}
    whole = {**tiny, "env": env, "evaluate": evaluate, "gate": gate}
    return parse_params(whole, "test").model_dump(mode="json")


def preset(site: Site, world: str, **evolution: Any) -> str:
    path = site.folder / f"{world}.yaml"
    path.write_text(parse_params(params(world, **evolution), "test", recorded=True).to_yaml())
    return str(path)


def kill_one(site: Site, clients: Clients, part: str) -> Hit:
    """A run for one part, which is killed in the middle of it."""
    run_id, seed = f"kill-{part.replace(' ', '-').lower()}", 100 + PARTS.index(part)
    site.launch(run_id, params=params("carts", generations=GENERATIONS, seed=seed))
    wait_until("checkpoint", lambda: site.generations(run_id) > HIT)
    begun, at = time.monotonic(), site.generations(run_id)
    back = site.kill(part, run_id)
    return ended(site, clients, run_id, part, at, back, begun)


def cancel_and_resume(site: Site, clients: Clients) -> Hit:
    """A flow run is cancelled by Prefect's own button, and its run is resumed by a new flow run."""
    run_id = "cancelled"
    flow = site.launch(run_id, params=params("carts", generations=GENERATIONS, seed=200))
    wait_until("checkpoint", lambda: site.generations(run_id) > HIT)
    begun, at = time.monotonic(), site.generations(run_id)
    site.cancel(flow)
    back = wait_until("end of it", lambda: site.state(flow) == "CANCELLED" and site.over(run_id))
    trace = runs.find(site.home, run_id)
    assert trace is not None
    assert trace.state == "cancelled", trace
    assert site.generations(run_id) < GENERATIONS
    again = site.launch(run_id)
    wait_until("end of the resumed flow run", lambda: site.state(again) == "COMPLETED")
    return ended(site, clients, run_id, "cancelled and resumed", at, back, begun)


def ended(
    site: Site, clients: Clients, run_id: str, part: str, at: int, back: float, begun: float
) -> Hit:
    wait_until(f"end of {run_id}", lambda: site.over(run_id))
    trace = runs.find(site.home, run_id)
    assert trace is not None
    broken = clients.broken(begun)
    say(f"{run_id}: hit at generation {at}, {trace.state}, {broken} connections broke")
    return Hit(run_id, part, at, round(back, 1), trace.state, trace.resumed, broken)


def fire(site: Site, clients: Clients) -> list[Hit]:
    """Two schedules side by side; nobody but the clock starts anything."""
    begun = time.monotonic()
    for name in SCHEDULES:
        policy = ["--policy", "policy" if name == "carts" else name]
        chosen = ["--preset", preset(site, name, generations=FIRED)]
        site.srghn("schedule", "add", name, "--cron", "* * * * *", *policy, *chosen)

    def fired() -> bool:
        over = [t.schedule for t in runs.recent(site.home) if t.state == "finished"]
        return all(over.count(name) >= FIRINGS for name in SCHEDULES)

    wait_until("third firing of both", fired)
    for name in SCHEDULES:
        site.srghn("schedule", "pause", name, "--reason", "enough")
    wait_until("end of what runs", lambda: not site.going())
    done = [t for t in runs.recent(site.home) if t.schedule in SCHEDULES]
    return [ended(site, clients, t.run_id, f"fired by {t.schedule}", 0, 0.0, begun) for t in done]


def problems(site: Site, hits: list[Hit], clients: Clients) -> Iterator[str]:
    """What should not be."""
    yield from clients.faults()
    for hit in hits:
        if hit.ended != "finished":
            yield f"{hit.run} ended as {hit.ended}"
        if not hit.same_bytes:
            yield f"{hit.run} is not the bytes of the undisturbed run"
        if hit.broken and hit.killed not in BREAKS:
            yield f"{hit.broken} connections broke when the {hit.killed} was hit"
    yield from mixed(site, hits)
    ledger = Ledger(f"sqlite:///{site.home / 'ledger.db'}")
    ledger.verify()
    known = {outcome.episode_id for outcome in ledger.outcomes()}
    for seen in clients.seen:
        yield from (f"{name} was acknowledged, and is lost" for name in set(seen.episodes) - known)
    ledger.close()
    client = MlflowClient(site.mlflow_url)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            if run.info.status != "FINISHED":
                yield f"MLflow run {run.info.run_name} is {run.info.status}"


def mixed(site: Site, hits: list[Hit]) -> Iterator[str]:
    """Whether the two schedules' candidates met in any way."""
    ledger = Ledger(f"sqlite:///{site.home / 'ledger.db'}")
    fired = {hit.run: hit.killed.rpartition(" ")[2] for hit in hits if "fired" in hit.killed}
    digests = []
    for policy, width in (("policy", 4), ("timed", 5)):
        for version in ledger.versions(policy):
            digests.append(version.digest)
            seen = version.manifest["interface"]["observation_size"]
            if seen != width:
                yield f"version {version.version} of {policy} observes {seen} numbers"
            of = fired.get(version.run_id)
            if of is not None and (of == "timed") is not (policy == "timed"):
                yield f"run {version.run_id} of schedule {of} made a version of {policy}"
    if len(digests) != len(set(digests)):
        yield "two runs made one candidate"
    ledger.close()


def undisturbed(yard: Yard, run_id: str, site: Site) -> bool:
    """Make a run again where no part ever died; whether its bytes are the same."""
    whole = Workspace(site.home / "workspaces" / run_id)
    again = Workspace(yard.folder / run_id)
    for name in ("params.yaml", "policy.json", "data/env_version.json"):
        if (whole.root / name).exists():
            (again.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole.root / name, again.root / name)
    return yard.finish(again) == outcome(whole)


def work(
    folder: Path, pictures: Path, steps: Sequence[str], parts: Sequence[str]
) -> tuple[list[Hit], list[str], Clients]:
    site = Site(folder / "site")
    site.folder.mkdir()
    try:
        site.start_mlflow()
        first = site.srghn("run", "--approve", "auto", "--preset", preset(site, "carts"))
        assert first["state"] == "CHAMPION", first
        say(f"first champion: version {first['version']}")
        before = folder / "before"  # the champion that founds the runs, and nothing that was hit
        shutil.copytree(site.home, before)
        site.start_up()
        say(f"everything is up: {site.url}")
        with Clients(
            site, pin(parse_params(params("carts"), "test", recorded=True).env)
        ) as clients:
            wait_until("first episodes", lambda: all(seen.episodes for seen in clients.seen))
            hits, wrong = played(site, clients, steps, parts)
        if "screens" in steps and hits:
            wrong += look(site, pictures, hits[0].run)
        yard = Yard(folder / "again", Settings(home=before).resolved(), RunParams())
        hits = [replace(hit, same_bytes=undisturbed(yard, hit.run, site)) for hit in hits]
        return hits, [*wrong, *problems(site, hits, clients)], clients
    finally:
        site.stop()


def played(
    site: Site, clients: Clients, steps: Sequence[str], parts: Sequence[str]
) -> tuple[list[Hit], list[str]]:
    """Every step in turn. One that fails is told, and the next ones are played all the same."""
    todo: list[tuple[str, Callable[[], list[Hit]]]] = [
        (f"kill of the {part}", lambda part=part: [kill_one(site, clients, part)])  # type: ignore[misc]
        for part in parts
        if "kills" in steps
    ]
    if "cancel" in steps:
        todo.append(("cancel", lambda: [cancel_and_resume(site, clients)]))
    if "schedules" in steps:
        todo.append(("schedules", lambda: fire(site, clients)))
    hits, wrong = list[Hit](), list[str]()
    for name, play in todo:
        try:
            hits += play()
        except (AssertionError, OSError, RuntimeError, httpx.HTTPError) as error:
            wrong.append(f"{name}: {error!r}")
            say(wrong[-1])
    return hits, wrong


def look(site: Site, pictures: Path, run_id: str) -> list[str]:
    """What is wrong with the screens that show a finished run."""
    done = runs.find(site.home, run_id)
    if done is None or done.version is None:
        return [f"run {run_id} has no version to be looked at: {done}"]
    screens = Screens(site, pictures)
    try:
        return screens.look(done.run_id, done.version)
    except Exception as error:  # noqa: BLE001  of Playwright, or what a screen did not have
        return [*screens.wrong, f"screens: {error!r}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="where to write a row a run, as CSV")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="default: all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--keep", type=Path, help="a new folder for homes and logs, kept")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of the screens")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its servers are stopped, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    be_quiet()
    with tempfile.TemporaryDirectory(prefix="srghn-loop-kills-") as name:
        folder = chosen.keep or Path(name)
        folder.mkdir(exist_ok=True)
        pictures = chosen.pictures or folder / "pictures"
        hits, wrong, clients = work(folder, pictures, chosen.steps, chosen.parts)
    if chosen.table is not None and hits:
        with chosen.table.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(asdict(hits[0])), lineterminator="\n")
            table.writeheader()
            table.writerows(asdict(hit) for hit in hits)
    asked = sum(seen.requests for seen in clients.seen)
    slowest = max(seen.slowest for seen in clients.seen)
    whole = sum(len(seen.episodes) for seen in clients.seen)
    spare = sum(len(seen.unrecorded) for seen in clients.seen)
    say(f"{asked} requests in {whole} whole episodes, the slowest {slowest:.2f} s")
    say(f"{spare} episodes whose answers said that they are not recorded")
    say("\n".join(wrong) or "all as undisturbed")
    return 1 if wrong else 0


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
