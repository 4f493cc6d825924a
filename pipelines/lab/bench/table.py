"""The table: for each work, its contestants, their speeds, and the ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipelines.lab.bench import loops, peers
from pipelines.lab.bench.loops import Play
from pipelines.lab.bench.measure import one_core, rates
from pipelines.lab.bench.works import Work
from serving.settings import Settings
from srghn.envs import pin
from srghn.errors import SrghnError
from srghn.evaluation.base import WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task

OURS, PLAIN = "srghn", "plain loop, torch"
#: World -> the contestant that is the limit; for other worlds the environment alone.
LIMITS = {"CartPole-v1": "physics alone", "Ant-v5": "mj_step alone"}


@dataclass(frozen=True)
class Row:
    """One contestant on one work.

    `ratio_to_plain_loop` is to the plain loop with a torch policy, for the same work and run.
    """

    work: str
    contestant: str
    steps_per_cpu_second: float
    ratio_to_plain_loop: float
    share_of_limit: float | None

    @property
    def times(self) -> str:
        """The ratio for people: 0.801x, 24.6x, 2,640x."""
        ratio = self.ratio_to_plain_loop
        return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.3g}x"


def measure_work(
    work: Work, home: Path, rounds: int, seconds: float, say: Callable[[str], None]
) -> list[Row]:
    """The rows of one work, fastest last; `say` is told of peers that are missing or fail."""
    with one_core():
        found = rates(_contestants(work), rounds, seconds)
        for peer in _peers(work):
            if not peer.installed(home):
                say(f"{peer.name}: not installed, skipped (srghn bench --install-peers)")
                continue
            try:
                found[peer.name] = peers.rate(peer, work, home, rounds, seconds)
            except SrghnError as error:
                say(f"{work.name}: {error}")
    limit = found[LIMITS.get(work.env, "environment alone")]
    return [
        Row(
            work.name,
            name,
            round(rate, 1),
            round(rate / found[PLAIN], 3),
            None if name == "policy alone" else round(rate / limit, 4),
        )
        for name, rate in sorted(found.items(), key=lambda item: item[1])
    ]


def _contestants(work: Work) -> dict[str, Play]:
    plays = {
        PLAIN: loops.torch_loop(work),
        OURS: ours(work),
        "policy alone": loops.policy_alone(work),
    }
    if loops.has_numpy_policy(work):
        plays["plain loop, numpy"] = loops.numpy_loop(work)
    if work.env == "CartPole-v1":
        plays[LIMITS[work.env]] = loops.cartpole_alone(work)
    elif loops.has_numpy_policy(work):
        plays["environment alone"] = loops.environment_alone(work)
    if work.env == "LunarLander-v3" and find_spec("envpool"):
        plays[f"{OURS}, EnvPool's world"] = ours(work, "envpool")
    if work.env == "Ant-v5":
        plays[LIMITS[work.env]] = loops.mujoco_alone(work)
    return plays


def ours(work: Work, world: str = "gymnasium") -> Play:
    """This project's fastest evaluator in one process, for the world of the backend `world`."""
    version = work.version
    if world != version.backend:
        version = pin(version.params.model_copy(update={"backend": world}))
    evaluator = make_evaluator(Settings(engine="inprocess"), version, work.network)
    policies = WeightedPolicies(work.network, version.interface, work.population.dense())
    task = Task(version, version.modes[0], work.seeds)

    def play(least: int) -> int:
        steps = 0
        while steps < least:
            steps += evaluator.evaluate(policies, task).steps
        return steps

    return play


def _peers(work: Work) -> Iterator[peers.Peer]:
    if loops.has_numpy_policy(work):
        yield from (peer for peer in peers.PEERS if work.env in peer.worlds)
