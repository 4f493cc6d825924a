"""Freeze an evolved individual as a `Candidate`: genome, ONNX policy, ancestry and golden outputs.

The ONNX graph holds the network and the rule that turns its outputs into actions
(`srghn.envs.interface.Interface.decode`), so what is judged and served is one file that needs
neither torch nor this package.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from srghn.candidates.candidate import FORMAT, MANIFEST, Candidate
from srghn.candidates.unrolled import Rank4Attention, unrolled
from srghn.envs.interface import Interface
from srghn.errors import FAILURES, ArchitectureMismatch, ArtefactError
from srghn.files import atomic_write, canonical_json, sha256_bytes, sync_folder
from srghn.graph.frozen import evolved_parameters, evolved_size, frozen_digest
from srghn.memory import state_size
from srghn.provenance import platform_note
from srghn.quiet import hushed

#: torch's error where control flow depends on values.
_BRANCHES = "GuardOnDataDependentSymNode"
#: Packages whose version is part of a candidate's record.
RECORDED = ("torch", "numpy", "gymnasium", "onnx", "onnxscript", "onnxruntime", "srghn")


class ServedPolicy(nn.Module):
    """A policy network and the decode rule: float32 observations (n, d) -> actions.

    A network with memory also takes a state (n, state_size), and gives (actions, next state).
    """

    def __init__(self, network: nn.Module, interface: Interface) -> None:
        super().__init__()
        self.network = network
        self.kind = interface.action_kind
        self.choices = interface.choices
        self.starts = interface.starts
        if self.kind == "box":
            rule = interface.box_rule
            self.clip_low, self.clip_high = _constant(rule.low), _constant(rule.high)
            self.scale, self.centre = _constant(rule.half), _constant(rule.centre)

    def forward(self, obs: Tensor, *state: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        answer: Any = self.network(obs, *state)
        return (self.decode(answer[0]), answer[1]) if state else self.decode(answer)

    def decode(self, outputs: Tensor) -> Tensor:
        """Outputs (n, action_size) -> actions, by the interface's rule."""
        if self.kind == "box":
            clipped = torch.minimum(torch.maximum(outputs, self.clip_low), self.clip_high)
            return clipped * self.scale + self.centre
        blocks = torch.split(outputs, list(self.choices), dim=1)
        actions = [b.argmax(dim=1) + s for b, s in zip(blocks, self.starts, strict=True)]
        return actions[0] if self.kind == "discrete" else torch.stack(actions, dim=1)


def _constant(values: NDArray[np.float32]) -> nn.Buffer:
    return nn.Buffer(torch.from_numpy(values.copy()))


def load_weights(network: nn.Module, weights: NDArray[np.float32]) -> nn.Module:
    """Put flat weights (parameters,) into a module, in `evolved_parameters` order.

    Raises `ArchitectureMismatch` if the module has another number of parameters.
    """
    expected = evolved_size(network)
    if weights.shape != (expected,):
        raise ArchitectureMismatch(
            f"{type(network).__name__} has {expected} parameters to be evolved, got weights of "
            f"shape {weights.shape}; use the network parameters the weights were made for"
        )
    with torch.no_grad():
        evolved = [parameter for _, parameter in evolved_parameters(network)]
        nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()), evolved)
    return network.eval()


def export_onnx(policy: ServedPolicy, observation_size: int) -> bytes:
    """The policy as ONNX bytes: input `obs` (batch, d), output `action`. Same weights, same bytes.

    A network with memory also has the input `state` and the output `next_state`, both (batch,
    state_size). Raises `ArtefactError` in one line for what ONNX cannot hold.

    The exporter's notes on where in the source an operation came from are left out: they would
    differ from machine to machine.
    """
    kept = state_size(policy.network)
    example = (torch.zeros(2, observation_size), *([torch.zeros(2, kept)] if kept else []))
    with hushed():
        try:
            program = _program(unrolled(policy), example)
        except FAILURES as first:
            try:
                with Rank4Attention():
                    program = _program(unrolled(policy), example)
            except FAILURES:
                raise _not_exported(policy.network, first) from first
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    noted: list[Any] = [proto, graph, *graph.node, *graph.value_info, *graph.initializer]
    for part in [*noted, *graph.input, *graph.output]:
        del part.metadata_props[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _program(policy: nn.Module, example: tuple[Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch")
    return torch.onnx.export(
        policy,
        example,
        input_names=["obs", "state"][: len(example)],
        output_names=["action", "next_state"][: len(example)],
        # the state is a variadic argument
        dynamic_shapes=({0: batch}, ({0: batch},)) if len(example) > 1 else ({0: batch},),
        dynamo=True,
        verbose=False,
    )


def _not_exported(network: nn.Module, error: BaseException) -> ArtefactError:
    """The exporter's last words: it prints a page, whose cause is an operator's name."""
    told = error
    while told.__cause__ is not None:
        told = told.__cause__
    if type(told).__name__ == _BRANCHES:
        return ArtefactError(
            f"network {type(network).__name__} cannot be exported to ONNX: an if or a loop depends "
            "on its data; write forward without control flow over values: compute every branch and "
            "choose with torch.where"
        )
    operator = re.search(r"aten[.:][\w.]+|prims?[.:][\w.]+", f"{told} {error}")
    lines = [line.strip() for line in str(told).splitlines() if line.strip()]
    return ArtefactError(
        f"network {type(network).__name__} cannot be exported to ONNX"
        + (f", operator {operator[0]}" if operator else "")
        + f": {type(told).__name__}: {(lines or ['no reason given'])[0][:300]}; use other "
        "operations"
    )


def freeze(
    folder: Path,
    *,
    network: nn.Module,
    weights: NDArray[np.float32],
    genome: NDArray[np.float32],
    interface: Interface,
    env_version: str,
    ancestry: str,
    observations: NDArray[np.float32],
    states: NDArray[np.float32] | None = None,
    manifest: Mapping[str, Any],
) -> Candidate:
    """Write a candidate folder, whole or not at all, and return it verified.

    `weights` (parameters,) is what `genome` (genome_size,) generates for `network`; `env_version`
    and `ancestry` are JSON texts; `observations` (n, d) are ones the policy met, and become the
    golden inputs; `states` (n, state_size) are those it had then, where it keeps one. `manifest`
    adds to what is recorded here (run, generation, mode, fingerprint).

    Raises `ArtefactError` if the weights are not finite, or its answers to the golden observations,
    or if the exported policy does not answer these as the network does.
    """
    if not np.isfinite(weights).all() or not np.isfinite(genome).all():
        raise ArtefactError("the individual has NaN or infinite weights; it cannot be frozen")
    served = ServedPolicy(load_weights(network, weights), interface).eval()
    golden, kept = _golden(served, observations, states), state_size(served.network)
    files = {
        "genome.safetensors": save({"genome": np.ascontiguousarray(genome, np.float32)}),
        "policy.onnx": export_onnx(served, interface.observation_size),
        "ancestry.json": ancestry.encode(),
        "golden.json": canonical_json(golden),
        "env_version.json": env_version.encode(),
    }
    record = {
        **manifest,
        "format": FORMAT,
        "interface": interface.to_dict(),
        "genome_digest": sha256_bytes(files["genome.safetensors"]),
        "policy_digest": sha256_bytes(files["policy.onnx"]),
        "lineage_digest": sha256_bytes(files["ancestry.json"]),
        "golden_digest": sha256_bytes(files["golden.json"]),
        "env_digest": sha256_bytes(files["env_version.json"]),
        **({"state_size": kept} if kept else {}),
        **({"frozen_digest": frozen} if (frozen := frozen_digest(network)) else {}),
        "platform": platform_note(),
        "packages": {name: package_version(name) for name in RECORDED},
    }
    _write(folder, {**files, MANIFEST: canonical_json(record)})
    return Candidate.load(folder)


def _golden(
    served: ServedPolicy, observations: NDArray[np.float32], states: NDArray[np.float32] | None
) -> dict[str, Any]:
    """The network's own answers to observations (n, d), in states (n, state_size) or in none."""
    kept = state_size(served.network)
    before = np.zeros((len(observations), kept), np.float32) if states is None else states
    given = [torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (observations, before)]
    with torch.no_grad():
        answers = served(*given) if kept else (served(given[0]),)
    if not all(torch.isfinite(answer).all() for answer in answers):
        raise ArtefactError(
            "the individual's actions or states are not all finite for observations that it met; "
            "it cannot be frozen: give its outputs a bound, such as tanh, or choose another"
        )
    golden = dict(zip(("actions", "next_states"), (a.tolist() for a in answers), strict=False))
    golden |= {"states": before.tolist()} if kept else {}
    return {"observations": given[0].tolist(), **golden}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace a candidate's folder, by one that loads and gives its golden answers."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, data in files.items():
            atomic_write(aside / name, data)
        Candidate.load(aside).check_golden()
        aside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(folder.parent)
