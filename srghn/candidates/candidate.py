"""A candidate: one evolved policy, frozen for judgement and, if promoted, for service.

A candidate is a folder. `manifest.json` names every other file's digest, so the SHA-256 of the
manifest's bytes, the candidate's digest, stands for all of it. Reading one needs no torch: the
policy is ONNX and includes the rule that turns network outputs into actions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.envs.interface import Interface
from srghn.errors import ArtefactError, EnvVersionError, ObservationError
from srghn.files import sha256_bytes, sha256_file
from srghn.notebook import card

FORMAT = 1
MANIFEST = "manifest.json"
#: The files of a candidate and the manifest's key that holds each one's digest.
FILES = {
    "genome.safetensors": "genome_digest",
    "policy.onnx": "policy_digest",
    "ancestry.json": "lineage_digest",
    "golden.json": "golden_digest",
    "env_version.json": "env_digest",
}


class OnnxPolicy:
    """The policy as it is served: float32 observations (n, d) -> actions (n,) or (n, k).

    One that keeps a state has a `state_size` above 0 and is asked by `step`. Runs single-threaded
    on the CPU, so that the same observation always gives the same action. Raises `ArtefactError` if
    the file is missing, is not ONNX, or has another digest.
    """

    def __init__(self, path: Path, digest: str | None = None) -> None:
        data = _read(path)
        if digest is not None and sha256_bytes(data) != digest:
            raise _tampered(path, digest, sha256_bytes(data))
        self._start(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> OnnxPolicy:
        """A policy from bytes; `name` names it in errors."""
        policy = cls.__new__(cls)
        policy._start(data, name)
        return policy

    def _start(self, data: bytes, name: str) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
        import onnxruntime  # costs 0.5 s, and reading a manifest does not need it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own types derive from Exception alone
            raise ArtefactError(f"{name} is not a policy ONNX Runtime can load: {error}") from error
        shapes = {given.name: given.shape for given in self._session.get_inputs()}
        self.observation_size = int(shapes["obs"][1])
        self.state_size = int(shapes["state"][1]) if "state" in shapes else 0
        self._name = name

    def __call__(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """Actions; raises `ArtefactError` for a policy that keeps a state, which `step` needs.

        Observations of another shape or type raise `ObservationError`, here and in `step`.
        """
        if self.state_size:
            raise ArtefactError(
                f"{self._name} keeps a state of {self.state_size} values from step to step: pass "
                "the state that its last call returned, or zeros at the start of an episode"
            )
        actions: NDArray[Any] = self._run(["action"], {"obs": observations})[0]
        return actions

    def step(
        self, observations: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Actions, and the next state (n, state_size); the first of an episode is zeros.

        A policy that keeps none takes and gives (n, 0).
        """
        if not self.state_size:
            return self(observations), state
        actions, after = self._run(["action", "next_state"], {"obs": observations, "state": state})
        return actions, after

    def _run(self, wanted: list[str], given: dict[str, NDArray[np.float32]]) -> list[Any]:
        try:  # costs nothing, where checks would cost time at every step
            found: list[Any] = self._session.run(wanted, given)
            return found
        except Exception as error:  # onnxruntime's own types derive from Exception alone
            sizes = {"obs": self.observation_size, "state": self.state_size}
            if all(_is_rows(x, sizes[name]) for name, x in given.items()):
                raise
            state = f" and states float32 (n, {self.state_size})" if self.state_size else ""
            got = [f"{getattr(x, 'dtype', type(x).__name__)} {np.shape(x)}" for x in given.values()]
            raise ObservationError(
                f"{self._name} takes observations float32 (n, {self.observation_size}){state}, "
                f"got {' and '.join(got)}"
            ) from error


def _is_rows(given: Any, size: int) -> bool:
    shape, dtype = np.shape(given), getattr(given, "dtype", None)
    return dtype == np.float32 and len(shape) == 2 and shape[1] == size


@dataclass(frozen=True)
class Candidate:
    """A candidate folder whose every file has been checked against its digest."""

    path: Path
    digest: str
    manifest: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Candidate:
        """Read and verify a candidate; raises `ArtefactError` naming the file and both digests."""
        data = _read(path / MANIFEST)
        try:
            manifest = json.loads(data)
        except ValueError as error:
            raise ArtefactError(f"{path / MANIFEST} is not JSON: {error}") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else manifest
            raise ArtefactError(
                f"{path / MANIFEST}: expected a candidate of format {FORMAT}, found {found!r}"
            )
        for name, key in FILES.items():
            expected, actual = manifest.get(key), _digest(path / name)
            if expected != actual:
                raise _tampered(path / name, str(expected), actual)
        return cls(path, sha256_bytes(data), manifest)

    def __repr__(self) -> str:
        return f"Candidate({str(self.path)!r}, {self.digest[:12]}, mode {self.mode!r})"

    def _repr_html_(self) -> str:
        rows = {
            "digest": self.digest,
            "environment": f"{self.env_fingerprint[:12]}, mode {self.mode}",
            "generation": self.generation,
            "folder": self.path,
        }
        return card("Candidate", rows)

    @property
    def env_fingerprint(self) -> str:
        return str(self.manifest["env_fingerprint"])

    @property
    def mode(self) -> str:
        return str(self.manifest["mode"])

    @property
    def generation(self) -> int:
        return int(self.manifest["generation"])

    @property
    def ancestry(self) -> str:
        """The lineage as JSON, which `Ancestry.from_json` reads."""
        return _read(self.path / "ancestry.json").decode()

    @cached_property
    def golden(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Recorded observations (n, d) and the actions the evolved network took on them."""
        data = json.loads(_read(self.path / "golden.json"))
        return np.array(data["observations"], np.float32), np.array(data["actions"])

    def policy_bytes(self) -> bytes:
        """The policy's ONNX file, checked against its digest as `policy` does."""
        path, expected = self.path / "policy.onnx", str(self.manifest["policy_digest"])
        data = _read(path)
        if sha256_bytes(data) != expected:
            raise _tampered(path, expected, sha256_bytes(data))
        return data

    @cached_property
    def golden_states(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """States (n, state_size) before and after the golden observations; n rows of none."""
        data = json.loads(_read(self.path / "golden.json"))
        count = len(data["observations"])
        before, after = (
            np.array(data.get(name, []), np.float32).reshape(count, -1)
            for name in ("states", "next_states")
        )
        return before, after

    def policy(self) -> OnnxPolicy:
        return OnnxPolicy(self.path / "policy.onnx", str(self.manifest["policy_digest"]))

    def check_golden(self, policy: OnnxPolicy | None = None) -> None:
        """Ask the policy for every golden action; raises `ArtefactError` on the first that differs.

        Discrete actions must be equal, box actions `Interface.alike`, states within 1e-5.
        """
        observations, expected = self.golden
        asked = policy or self.policy()
        before, after = self.golden_states
        actual, found = asked.step(observations, before)
        if found.shape != after.shape or not np.allclose(found, after, rtol=0, atol=1e-5):
            raise ArtefactError(
                f"{self.path}: policy.onnx returns another state for the golden observations than "
                "the evolved network did; freeze the candidate again"
            )
        if actual.shape != expected.shape:
            raise ArtefactError(
                f"{self.path}: the policy's actions have shape {actual.shape}, "
                f"its golden outputs {expected.shape}; freeze the candidate again"
            )
        wrong = ~self._alike(actual, expected)
        if wrong.any():
            first = int(np.argwhere(wrong)[0][0])
            raise ArtefactError(
                f"{self.path}: policy.onnx returns {actual[first]} for golden observation {first}, "
                f"expected {expected[first]}; freeze the candidate again"
            )

    def _alike(self, actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
        face = self.manifest.get("interface", {})
        if face.get("action_kind") == "box":
            try:
                return Interface.from_dict(face).alike(actual, expected)
            except EnvVersionError as error:
                raise ArtefactError(f"{self.path}: {error}") from error
        close: NDArray[np.bool_] = np.isclose(actual, expected, rtol=0, atol=1e-5)
        return close

    def load_genome(self) -> NDArray[np.float32]:
        """The genome, shape (genome_size,): what its hypernetwork turns into the policy."""
        from safetensors.numpy import load

        tensors = load(_read(self.path / "genome.safetensors"))
        return tensors["genome"].astype(np.float32, copy=False)


def load_candidate(folder: Path | str) -> Candidate:
    """Read a candidate and check every file; raises `ArtefactError` naming the one at fault."""
    return Candidate.load(Path(folder))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror or error}") from error


def _digest(path: Path) -> str:
    if not path.is_file():
        raise ArtefactError(f"{path} is missing from the candidate")
    return sha256_file(path)


def _tampered(path: Path, expected: str, actual: str) -> ArtefactError:
    return ArtefactError(
        f"{path} was changed: its manifest says sha256 {expected[:16]}…, the file has "
        f"{actual[:16]}…; restore {path.parent} from a backup; if it is served, srghn rollback "
        "brings an earlier champion back"
    )
