"""Replay: make a candidate again from its lineage alone, and play the gate's episodes again.

On the platform that made it everything must be equal to the bit. On another one numerical
libraries may round differently: then genome, actions and mean returns are compared within stated
tolerances, and the result says which comparison it was. What was tampered with is named first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.progress import spinner
from pipelines.versions.kept_report import KeptReport, play_again
from pipelines.versions.release import Release
from serving.settings import Settings
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.config import RunParams
from srghn.envs import EnvVersion, verify
from srghn.errors import ArtefactError, ConfigError, FingerprintMismatch, ReplayMismatch
from srghn.files import sha256_bytes
from srghn.provenance import platform_note

#: On another platform: the largest difference of a genome's values and of box actions, and of a
#: cell's mean return as a share of the gate's scale.
TOLERANCE = 1e-4
RETURN_TOLERANCE = 0.05
#: Packages beside those of `platform_note` that move the bytes of an ONNX file.
EXPORTERS = ("onnx", "onnxscript")


@dataclass(frozen=True)
class Finding:
    """One thing made again and compared; `how` is 'bytes' or 'within tolerance'."""

    what: str
    how: str
    recorded: str
    found: str
    equal: bool


@dataclass(frozen=True)
class Replayed:
    """What was made again. `moved` says in what the platform differs; empty for the same one.

    `unplayed` says why the gate's episodes were not played, where they were not.
    """

    candidate: str
    moved: tuple[str, ...]
    findings: tuple[Finding, ...]
    unplayed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "platform": "another" if self.moved else "same"}


def replay(settings: Settings, what: str) -> Replayed:
    """Replay a version of the ledger by number, or any candidate's folder by path.

    Raises `ArtefactError` naming a file that was changed, `ReplayMismatch` naming what came out
    different, and `FingerprintMismatch` if the world is no longer the one it was judged in.
    """
    candidate, report, judged_in = _find(settings, what)
    world = EnvVersion.load(candidate.path / "env_version.json")
    if world.fingerprint != candidate.env_fingerprint:
        raise ArtefactError(
            f"{candidate.path}: the manifest names environment {candidate.env_fingerprint}, "
            f"env_version.json is {world.fingerprint}; restore the folder"
        )
    moved = tuple(_moved(candidate.manifest))
    with spinner("rebuilding the genome from its lineage"):
        weights, findings = grow_again(candidate, world, same_platform=not moved)
        _require_equal(findings, moved)
    with spinner("exporting the policy"):
        policy, found = export_again(candidate, world, weights, same_platform=not moved)
        _require_equal(found, moved)
    findings += found
    if report is None:
        unplayed = "it has not been judged"
        return Replayed(candidate.digest, moved, tuple(findings), unplayed)
    _verify_world(judged_in)
    from regression_suite.suite import resolved, width_of

    width = width_of(resolved(report.params, judged_in)) if moved else 0.0
    with spinner("replaying the gate's episodes"):
        played = play_again(report, policy, judged_in, Release(settings).store)
    episodes = [
        _bytes(what, recorded.digest, again.digest)
        if not moved
        else _close(
            what,
            recorded.means,
            again.means,
            RETURN_TOLERANCE * width,
        )
        for what, (recorded, again) in played.items()
    ]
    _require_equal(episodes, moved)
    return Replayed(candidate.digest, moved, (*findings, *episodes))


def _find(settings: Settings, what: str) -> tuple[Candidate, KeptReport | None, EnvVersion]:
    """The candidate, its report and the world that it was judged in.

    Of a version, which may be a recall to another world than its genome's; or of a folder and the
    `report` beside it.
    """
    if not what.isdecimal():
        folder = Path(what)
        if not folder.is_dir():
            raise ConfigError(
                f"{what!r} is neither a version's number nor a candidate's folder; "
                "srghn candidates lists the versions, data/candidate is the folder in a checkout"
            )
        candidate = Candidate.load(folder)
        beside = folder.resolve().parent / "report"
        kept = beside if (beside / "verdict.json").is_file() else None
        own = EnvVersion.load(candidate.path / "env_version.json")
        return candidate, KeptReport.load(kept, candidate.digest) if kept else None, own
    release = Release(settings)
    version = release.ledger.version(int(what))
    candidate, world = release.store.load(version.digest), release.world(version)
    if not version.report_digest:
        return candidate, None, world
    kept = release.store.report(release.ledger.verdict(version.version) or {})
    return candidate, KeptReport.load(kept, candidate.digest, version.report_digest), world


def grow_again(
    candidate: Candidate, world: EnvVersion, *, same_platform: bool
) -> tuple[NDArray[np.float32], list[Finding]]:
    """The policy's weights (parameters,) from its lineage alone; the genome compared."""
    from srghn.evolution.again import make_again
    from srghn.evolution.ancestry import Ancestry, genome_digest

    params = RunParams.model_validate(candidate.manifest["params"])
    ancestry = Ancestry.from_json(candidate.ancestry)
    try:
        genome, weights = make_again(ancestry, params, world.interface)
    except ReplayMismatch as error:
        made_by = candidate.manifest["packages"].get("srghn")
        raise ReplayMismatch(f"{error}; it was made by srghn {made_by}") from error
    kept = candidate.load_genome()
    lineage = _bytes("genome that the lineage names", genome_digest(kept), ancestry.genome_digest)
    if same_platform:
        again = _bytes("genome", genome_digest(kept), genome_digest(genome))
    else:
        again = _close("genome", kept, genome, TOLERANCE)
    return weights, [lineage, again]


def export_again(
    candidate: Candidate,
    world: EnvVersion,
    weights: NDArray[np.float32],
    *,
    same_platform: bool,
) -> tuple[OnnxPolicy, list[Finding]]:
    """The served policy from weights (parameters,), compared with the recorded one."""
    from srghn.candidates.freeze import ServedPolicy, export_onnx, load_weights
    from srghn.networks import build_network

    seen = world.interface
    params = RunParams.model_validate(candidate.manifest["params"]).network
    network = build_network(params, seen)
    served = ServedPolicy(load_weights(network, weights), seen).eval()
    onnx = export_onnx(served, seen.observation_size)
    policy = OnnxPolicy.from_bytes(onnx, "the rebuilt policy")
    if same_platform:
        recorded = str(candidate.manifest["policy_digest"])
        return policy, [_bytes("policy", recorded, sha256_bytes(onnx))]
    observations, actions = candidate.golden
    name = "actions on golden observations"
    return policy, [_close(name, actions, policy(observations), TOLERANCE)]


def _moved(manifest: Mapping[str, Any]) -> list[str]:
    """In what this platform differs from the one that a candidate was made on."""
    then = {**manifest["platform"], **{k: manifest["packages"].get(k) for k in EXPORTERS}}
    now: dict[str, Any] = {**platform_note(), **{name: _installed(name) for name in EXPORTERS}}
    return [
        f"{name}: {then.get(name)} then, {now.get(name)} now"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _installed(name: str) -> str | None:
    try:
        return package_version(name)
    except PackageNotFoundError:
        return None


def _verify_world(world: EnvVersion) -> None:
    with spinner("verifying the world"):
        try:
            verify(world)
        except FingerprintMismatch as error:
            raise FingerprintMismatch(
                "genome and policy are as recorded, but the gate's episodes cannot be replayed: "
                f"{error}"
            ) from error


def _require_equal(findings: Sequence[Finding], moved: tuple[str, ...]) -> None:
    for finding in findings:
        if not finding.equal:
            where = f"; made on another platform ({'; '.join(moved)})" if moved else ""
            raise ReplayMismatch(
                f"{finding.what} differs, compared by {finding.how}: recorded {finding.recorded}, "
                f"now {finding.found}{where}"
            )


def _bytes(what: str, recorded: str, found: str) -> Finding:
    return Finding(what, "bytes", recorded, found, recorded == found)


def _close(what: str, recorded: Any, found: Any, tolerance: float) -> Finding:
    """Compare number by number; equal infinities are no difference."""
    left, right = np.asarray(recorded, np.float64), np.asarray(found, np.float64)
    gaps = np.zeros(left.shape)
    np.subtract(left, right, out=gaps, where=left != right)
    furthest = float(np.abs(gaps).max(initial=0.0))
    said = f"largest difference {furthest:.2e}, tolerance {tolerance:.2g}"
    return Finding(what, "within tolerance", f"{left.size} numbers", said, furthest <= tolerance)
