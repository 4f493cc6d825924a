"""Each known-bad candidate: how it is made of one that passed, and what must refuse it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regression_suite import behaviour
from regression_suite.episodes import Seen, answer
from regression_suite.known_bad import surgery
from srghn import seeding
from srghn.candidates.candidate import FILES, MANIFEST, Candidate, OnnxPolicy
from srghn.config import GateParams, RunParams
from srghn.envs import EnvVersion
from srghn.files import canonical_json, sha256_file

#: Episodes that the overfitted one knows.
TRAINING = 8
#: Milliseconds: above this budget the slow one is judged by this budget, or it would take minutes.
SLOW_BUDGET = 5.0


@dataclass(frozen=True)
class Work:
    """What known-bad candidates are made of: one that passed, its world, mode and gate rules."""

    good: Candidate
    version: EnvVersion
    mode: str
    params: GateParams

    @property
    def kept(self) -> int:
        """Values of state that the policy keeps."""
        return int(self.good.manifest.get("state_size", 0))


@dataclass(frozen=True)
class KnownBad:
    """`make` writes the folder; one of the checks `refused_by` must refuse it.

    `cells`: it is judged in all cells of the suite, not in the primary one alone. `needless` says
    for a work why there can be no such candidate; '' where there can.
    """

    name: str
    what: str
    refused_by: tuple[str, ...]
    make: Callable[[Work, Path], None]
    cells: bool = False
    needless: Callable[[Work], str] = lambda work: ""


def _copy(work: Work, folder: Path, policy: bytes | None = None, **manifest: Any) -> None:
    """The good one's folder with another policy, sealed: every digest is right."""
    shutil.copytree(work.good.path, folder)
    if policy is not None:
        (folder / "policy.onnx").write_bytes(policy)
        _new_golden(work, folder)
    seal(folder, manifest)


def seal(folder: Path, changes: Mapping[str, Any]) -> None:
    """Write the manifest anew, with the digests of the files as they are."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    digests = {key: sha256_file(folder / name) for name, key in FILES.items()}
    (folder / MANIFEST).write_bytes(canonical_json({**manifest, **digests, **changes}))


def _new_golden(work: Work, folder: Path) -> None:
    """Golden outputs of the policy that is in the folder now."""
    policy = OnnxPolicy(folder / "policy.onnx")
    observations = work.good.golden[0]
    states = np.zeros((len(observations), policy.state_size), np.float32)
    before = work.good.golden_states[0]
    states[:, : before.shape[1]] = before[:, : policy.state_size]
    actions, after = policy.step(observations, states)
    golden = {"observations": observations.tolist(), "actions": actions.tolist()}
    if policy.state_size:
        golden |= {"states": states.tolist(), "next_states": after.tolist()}
    (folder / "golden.json").write_bytes(canonical_json(golden))


def _operated(operation: Callable[..., bytes]) -> Callable[[Work, Path], None]:
    def make(work: Work, folder: Path) -> None:
        _copy(work, folder, operation(work.good.policy_bytes(), work.version.interface))

    return make


def random_policy(work: Work, folder: Path) -> None:
    """A network nobody evolved: the policy of a founder with a seed of its own."""
    from srghn.candidates.freeze import ServedPolicy, export_onnx, load_weights
    from srghn.networks import build_network

    face = work.version.interface
    genome, weights = _founder(work)
    params = RunParams.model_validate(work.good.manifest["params"])
    network = load_weights(build_network(params.network, face), weights)
    policy = export_onnx(ServedPolicy(network, face).eval(), face.observation_size)
    _copy(work, folder, policy)
    _write_genome(folder, genome)
    seal(folder, {})


def _founder(work: Work) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A genome (genome_size,) of a seed that no run draws, and the weights that it makes."""
    from srghn.evolution.ancestry import grow
    from srghn.evolution.registry import make_strategy

    params = RunParams.model_validate(work.good.manifest["params"])
    encoding = make_strategy(params, work.version.interface).encoding
    if encoding is None:  # these strategies evolve the policy's weights themselves
        size = len(work.good.load_genome())
        genome = seeding.stream(0, "known bad").standard_normal(size, dtype=np.float32)
        return genome, genome
    genome = grow(encoding, [int(seeding.seeds(0, "known bad", 1)[0])])
    return genome, encoding.generate(genome[None])[0]


def _write_genome(folder: Path, genome: NDArray[np.float32]) -> None:
    from safetensors.numpy import save

    from srghn.evolution.ancestry import Ancestry, genome_digest

    (folder / "genome.safetensors").write_bytes(save({"genome": genome}))
    ancestry = Ancestry.from_json((folder / "ancestry.json").read_text(encoding="utf-8"))
    told = replace(ancestry, genome_digest=genome_digest(genome))
    (folder / "ancestry.json").write_text(told.to_json(), encoding="utf-8")


def nan_weights(work: Work, folder: Path) -> None:
    genome = work.good.load_genome().copy()
    genome[len(genome) // 2] = np.nan
    _copy(work, folder)
    _write_genome(folder, genome)
    seal(folder, {})


def tampered(work: Work, folder: Path) -> None:
    """One bit of the policy is another, and no digest says so."""
    _copy(work, folder)
    data = bytearray((folder / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "policy.onnx").write_bytes(data)


def other_world(work: Work, folder: Path) -> None:
    """The same candidate, said to be evolved where an episode may last a step longer."""
    longer = replace(work.version, max_episode_steps=work.version.max_episode_steps + 1)
    _copy(work, folder)
    (folder / "env_version.json").write_text(longer.to_json(), encoding="utf-8")
    seal(folder, {"env_fingerprint": longer.fingerprint})


def overfitted(work: Work, folder: Path) -> None:
    """It knows eight episodes by their first observation, and does the opposite in any other."""
    face, starts = work.version.interface, _starts(work, "known bad training", TRAINING)
    policy = surgery.good_from(work.good.policy_bytes(), face, starts, work.kept)
    _copy(work, folder, policy, state_size=work.kept + 1)


def _starts(work: Work, purpose: str, count: int) -> NDArray[np.float32]:
    """First observations (count, d)."""
    seeds = seeding.seeds(0, purpose, count).tolist()
    with work.version.make(work.mode) as env:
        met = [np.asarray(env.reset(seed=seed)[0], np.float32) for seed in seeds]
    return np.stack(met)


def _starts_alike(work: Work) -> str:
    known, fresh = _starts(work, "known bad training", TRAINING), _starts(work, "known bad", 4)
    near = np.abs(fresh[:, None] - known[None]).max(axis=2).min(axis=1) < 1e-6
    return "every episode begins alike here: no start can be known by heart" if near.any() else ""


def swapped(work: Work, folder: Path) -> None:
    """Another network's ONNX and golden outputs beside the evolved genome, every digest right."""
    other = folder.parent / f"{folder.name} donor"
    random_policy(work, other)
    _copy(work, folder)
    for name in ("policy.onnx", "golden.json"):
        shutil.copyfile(other / name, folder / name)
    seal(folder, {})
    shutil.rmtree(other)


def other_memory(work: Work, folder: Path) -> None:
    """Keeps what its genome's network does not; all that it declares and records is so."""
    operation = surgery.with_other_memory if work.kept else surgery.with_undeclared_state
    policy = operation(work.good.policy_bytes(), work.version.interface)
    _copy(work, folder, policy, state_size=work.kept or 1)


def slow(work: Work, folder: Path) -> None:
    """Answers as before, but takes twice the budget when it is asked alone."""
    good, face = work.good.policy_bytes(), work.version.interface
    budget, width = min(work.params.max_latency_ms, SLOW_BUDGET), 128
    while True:
        policy = surgery.slow_alone(good, face, width)
        made = OnnxPolicy.from_bytes(policy, "slow")
        # a few calls can be slow by chance on a busy machine: it is then timed as the gate does
        if width >= 4096 or all(
            _normal_ms(made, work, calls) > 2 * budget for calls in (15, behaviour.CALLS)
        ):
            break
        width = int(width * 1.4)
    _copy(work, folder, policy)


def _normal_ms(policy: OnnxPolicy, work: Work, calls: int) -> float:
    """Its latency on the machine that budgets are written for, from so many calls."""
    observations, states = work.good.golden[0], work.good.golden_states[0]
    seen = Seen(observations[:1], states[:1])
    answer(policy, seen.observations, seen.states)
    reference = behaviour.reference_policy(observations.shape[1])
    return behaviour.measure_latency(policy, reference, seen, calls).normal


def _one_action(work: Work) -> str:
    face = work.version.interface
    single = bool(face.choices) and max(face.choices) == 1
    return "there is only one action to choose" if single else ""


def _has_state(work: Work) -> str:
    return "the policy declares a state of its own" if work.kept else ""


BEHAVIOUR, GENOME = "behaviour", "policy of the genome"
PRIMARY = ("primary", "primary failures")
KNOWN_BAD = (
    KnownBad("constant", "one action, whatever it sees", (BEHAVIOUR,), _operated(surgery.constant)),
    KnownBad("random", "a network that nobody evolved", PRIMARY, random_policy),
    KnownBad("NaN", "a NaN in its genome", ("finite weights",), nan_weights),
    KnownBad("tampered", "one bit of its policy changed", ("integrity",), tampered),
    KnownBad("other world", "evolved in another world", ("environment",), other_world),
    KnownBad(
        "overfitted",
        "good on eight seeds it was bred on, the opposite on fresh ones",
        (*PRIMARY, "worst tenth"),
        overfitted,
        needless=lambda work: _one_action(work) or _starts_alike(work),
    ),
    KnownBad(
        "one bad cell",
        "as good as the champion, but for one cell of the suite",
        ("MARKED", "MARKED failures"),
        _operated(surgery.bad_where_marked),
        cells=True,
        needless=_one_action,
    ),
    KnownBad("swapped ONNX", "another network's policy beside its genome", (GENOME,), swapped),
    KnownBad("other memory", "keeps what its genome's network does not", (GENOME,), other_memory),
    KnownBad("slow", "twice over the latency budget", ("latency",), slow),
    KnownBad(
        "undeclared state",
        "remembers, and does not say so",
        ("serving artefact",),
        _operated(surgery.with_undeclared_state),
        needless=_has_state,
    ),
)
