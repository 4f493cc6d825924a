"""What must hold before a single episode is played: whole, from this world, finite, as evolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from regression_suite.rebuilt import REMEDY
from srghn.candidates.candidate import MANIFEST, Candidate
from srghn.config import GateParams, RunParams
from srghn.envs import EnvVersion, diff, verify
from srghn.envs.interface import Interface
from srghn.errors import ArtefactError, FingerprintMismatch, SrghnError
from srghn.files import sha256_file
from srghn.inference.verdict import Check

Array = NDArray[Any]

NUMBER = (float | int | None, "number")
#: The manifest's entries that gate and report read, with the kind of each.
KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("interface", "validation", "packages", "platform"), (dict, "object")),
    **dict.fromkeys(("generation", "state_size"), (int, "whole number")),
    "training_fitness": NUMBER,
}

#: Least golden observations that show the served policy to be the evolved one.
LEAST_GOLDEN = 8


@dataclass(frozen=True)
class Identity:
    """The checks, in order, up to the first that failed; the candidate if it could be read."""

    checks: tuple[Check, ...]
    candidate: Candidate | None
    digest: str

    @property
    def sound(self) -> bool:
        return all(check.outcome == "passed" for check in self.checks)


def identify(
    folder: Path, version: EnvVersion, params: GateParams, recalled: bool = False
) -> Identity:
    """Check a candidate folder, stopping at what makes the rest meaningless."""
    checks = [_world(version)]
    digest = sha256_file(folder / MANIFEST) if (folder / MANIFEST).is_file() else ""
    try:
        candidate = Candidate.load(folder)
        _read_manifest(candidate)
        own = _read_world(candidate)
        _read_genome(candidate)
        held = _tensors(candidate)
    except SrghnError as error:
        remedy = "Restore the original files, or freeze the candidate again."
        checks.append(Check("integrity", "failed", say(error), remedy=remedy))
        return Identity(tuple(checks), None, digest)
    checks.append(Check("integrity", "passed", "every file has the digest its manifest names"))
    for check in (
        _environment(candidate, own, version, recalled),
        _finite(candidate, own.interface, held),
        _serving(candidate),
        _size(candidate, params),
    ):
        checks.append(check)
        if check.outcome != "passed":
            break
    return Identity(tuple(checks), candidate, digest)


def read_incumbent(
    folder: Path, version: EnvVersion, named: str | None
) -> tuple[Check, Candidate | None]:
    """The champion to be evaluated again, and whether it can be.

    It may come from another world: it is judged only by playing in this one. It must be whole, be
    the one that is named, if one is, and see and answer what this world shows and takes.
    """
    try:
        incumbent = Candidate.load(folder)
        incumbent.check_golden()
    except SrghnError as error:
        return Check("incumbent", "error", f"the champion cannot be evaluated: {say(error)}"), None
    if named is not None and named != incumbent.digest:
        reason = f"expected champion {named[:16]}…, got {incumbent.digest[:16]}…"
        return Check("incumbent", "error", reason, remedy="Evaluate against the champion."), None
    if incumbent.manifest["interface"] != version.interface.to_dict():
        reason = (
            f"the champion was made for environment {incumbent.env_fingerprint[:16]}…, whose "
            f"observations or actions differ from those of {version.id} "
            f"{version.fingerprint[:16]}…"
        )
        remedy = "Start a new lineage in the new environment and judge it as a first champion."
        return Check("incumbent", "error", reason, remedy=remedy), None
    reason = f"champion {incumbent.digest[:16]}… is complete and is evaluated on the same episodes"
    return Check("incumbent", "passed", reason), incumbent


def _world(version: EnvVersion) -> Check:
    """The installed world still behaves as the pinned one."""
    try:
        verify(version)
    except FingerprintMismatch as error:
        remedy = "Pin the new environment (srghn env pin) and start a new lineage in it."
        return Check("world", "error", say(error), remedy=remedy)
    reason = f"{version.id} behaves as pinned: {version.fingerprint[:16]}…"
    return Check("world", "passed", reason)


def _read_manifest(candidate: Candidate) -> None:
    """Raises unless the manifest names what the gate asks of it, each entry of its own kind."""
    manifest = candidate.manifest
    missing = sorted({"env_fingerprint", "mode", "interface"} - set(manifest))
    if missing:
        raise ArtefactError(f"the manifest does not name {', '.join(missing)}")
    given = {name: manifest[name] for name in KINDS if name in manifest}
    if isinstance(validation := given.get("validation"), dict):
        given["validation mean"] = validation.get("mean")
    for name, value in given.items():
        kind, expected = KINDS.get(name, NUMBER)
        if not isinstance(value, kind):
            raise ArtefactError(f"the manifest's {name} is no {expected}, got {value!r:.80}")


def _read_world(candidate: Candidate) -> EnvVersion:
    """The world that came with the candidate; raises where it is not the one its manifest names."""
    own = EnvVersion.load(candidate.path / "env_version.json")
    if own.fingerprint != candidate.env_fingerprint:
        raise ArtefactError(
            f"env_version.json is environment {own.fingerprint[:16]}…, the manifest says "
            f"{candidate.env_fingerprint[:16]}…"
        )
    return own


def _read_genome(candidate: Candidate) -> None:
    """Raises unless the genome's file is written as `freeze` does, and holds nothing else.

    Attempts are counted by the digest of this file: the same numbers have one digest alone.
    """
    path = candidate.path / "genome.safetensors"
    try:
        written = save({"genome": candidate.load_genome()})
    except (KeyError, ValueError, SafetensorError) as error:
        raise ArtefactError(f"{path} holds no genome: {error}") from error
    if path.read_bytes() != written:
        raise ArtefactError(f"{path} is not written as srghn writes a genome")


def _environment(
    candidate: Candidate, own: EnvVersion, version: EnvVersion, recalled: bool
) -> Check:
    same_interface = candidate.manifest["interface"] == version.interface.to_dict()
    if recalled and same_interface and own.fingerprint != version.fingerprint:
        reason = f"evolved in {own.fingerprint[:16]}…, recalled to {version.fingerprint[:16]}…"
        return Check("environment", "passed", reason)
    if own.fingerprint == version.fingerprint and same_interface:
        return Check("environment", "passed", f"evolved in {version.fingerprint[:16]}…")
    moved = "; ".join(diff(own, version)[:3]) or "the interface that the manifest names"
    return Check(
        name="environment",
        outcome="failed",
        reason=(
            f"the candidate was evolved in {own.id} {candidate.env_fingerprint[:16]}…, this gate "
            f"judges {version.id} {version.fingerprint[:16]}…; different: {moved}"
        ),
        remedy="Pin the new environment with 'srghn env pin' and start a new lineage in it.",
    )


def _finite(candidate: Candidate, interface: Interface, held: Sequence[tuple[str, Array]]) -> Check:
    """What evolution made is finite; infinite numbers are the network's own, or the actions'.

    Such are a mask of attention, and the open side of a box that actions are clipped to. They stand
    in the policy's file at the same places whatever the weights are.
    """
    bad = {n: values for n, values in held if not np.isfinite(values).all()}
    if not bad:
        return Check("finite weights", "passed", "genome and policy hold only finite numbers")
    try:
        own = _constants(candidate, interface)
    except (SrghnError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = f"the network cannot be made from the manifest: {say(error)}"
        return Check("finite weights", "failed", reason, remedy=REMEDY)
    made = [n for n, v in bad.items() if n not in own or not np.array_equal(_infinite(v), own[n])]
    if not made:
        reason = f"numbers are finite but for the network's own constants: {', '.join(bad)}"
        return Check("finite weights", "passed", reason)
    reason = f"NaN or infinite numbers in {', '.join(made[:4])}"
    return Check("finite weights", "failed", reason, remedy="Discard this individual.")


def _constants(candidate: Candidate, interface: Interface) -> dict[str, Array]:
    """What is infinite in the file of the network with the weights that it is built with."""
    from srghn.candidates.freeze import ServedPolicy, export_onnx
    from srghn.networks import build_network

    params = RunParams.model_validate(candidate.manifest["params"])
    network = build_network(params.network, interface).eval()
    data = export_onnx(ServedPolicy(network, interface), interface.observation_size)
    return {name: _infinite(values) for name, values in _held(data)}


def _infinite(values: Array) -> Array:
    """The infinite numbers where they stand, and NaN; zero elsewhere."""
    return np.where(np.isfinite(values), 0, values)


def _tensors(candidate: Candidate) -> list[tuple[str, Array]]:
    """The numbers in genome and policy; raises where the policy's file cannot be read."""
    try:
        held = _held((candidate.path / "policy.onnx").read_bytes())
    except Exception as error:  # protobuf's errors and onnx's share no base but Exception
        raise ArtefactError(f"policy.onnx cannot be read: {error!r}") from error
    numbers = [(name, values) for name, values in held if values.dtype.kind not in "OSU"]
    return [("genome.safetensors", candidate.load_genome()), *numbers]


def _held(data: bytes) -> list[tuple[str, Array]]:
    """Names and values of all that an ONNX file holds."""
    import onnx  # costs 0.3 s, and only the gate looks inside a policy
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(data).graph
    return [(f"policy.onnx {t.name}", numpy_helper.to_array(t)) for t in graph.initializer]


def _serving(candidate: Candidate) -> Check:
    """The ONNX policy answers the recorded observations as the evolved torch network did."""
    try:
        observations, actions = candidate.golden
        finite = bool(np.isfinite(actions).all())
    except (ValueError, KeyError, TypeError) as error:
        return Check("serving artefact", "failed", f"golden.json cannot be read: {error!r}")
    if len(observations) < LEAST_GOLDEN or not np.isfinite(observations).all():
        reason = f"{len(observations)} usable golden observations, at least {LEAST_GOLDEN} needed"
        return Check("serving artefact", "failed", reason, remedy="Freeze the candidate again.")
    if not finite:
        reason = "its golden actions are not all finite"
        return Check("serving artefact", "failed", reason, remedy="Discard this individual.")
    if undeclared := _undeclared(candidate):
        return Check("serving artefact", "failed", undeclared, remedy="Freeze the candidate again.")
    try:
        candidate.check_golden()
    except (SrghnError, ValueError, TypeError) as error:
        return Check("serving artefact", "failed", say(error))
    reason = f"gives the evolved network's actions for all {len(observations)} golden observations"
    return Check("serving artefact", "passed", reason)


def _undeclared(candidate: Candidate) -> str:
    """Why the policy keeps another state than its manifest declares; '' where it keeps that one."""
    try:
        kept = candidate.policy().state_size
    except ArtefactError as error:
        return say(error)
    declared = int(candidate.manifest.get("state_size", 0))
    if kept == declared:
        return ""
    return f"policy.onnx keeps a state of {kept} values, its manifest declares {declared}"


def _size(candidate: Candidate, params: GateParams) -> Check:
    size = policy_size(candidate)
    fits = size <= params.max_policy_bytes
    return Check(
        name="size",
        outcome="passed" if fits else "failed",
        reason=f"policy.onnx has {size:,} bytes, {params.max_policy_bytes:,} are allowed",
        value=float(size),
        threshold=float(params.max_policy_bytes),
        remedy="" if fits else "Evolve a smaller policy, or raise gate.max_policy_bytes.",
    )


def policy_size(candidate: Candidate) -> int:
    """Bytes of the policy that would be served."""
    return (candidate.path / "policy.onnx").stat().st_size


def say(error: Exception) -> str:
    """The error's text with paths cut to the file's name: a report's bytes name no folder."""
    return " ".join(word.rsplit("/", 1)[-1] for word in str(error).split())
