"""Torch modules over lanes: a lane's outputs are its own, wherever it lies."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srghn.config import EnvParams, NetworkParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.evaluation.policies.forward import IDLE, ModuleForward
from srghn.evaluation.policies.mapped import MappedModule, mapped_modules
from srghn.policies import build_policy
from tests.srghn.evaluation.backends.test_gymnasium import population

LANES = 128


def face(observation_size: int, action_size: int) -> Interface:
    return Interface(
        observation_size, (None,), (None,), "discrete", choices=(action_size,), starts=(0,)
    )


class Branching(nn.Module):
    """Control flow that depends on data: nothing that `vmap` can map."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(observation_size, action_size)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x)
        return outputs if bool(x.sum() > 0) else -outputs


@pytest.mark.parametrize("width", [5, 37, 64])
def test_lanes_that_change_places_take_their_outputs_with_them(width: int) -> None:
    """At width 37 a plain batched product adds up in an order that depends on the lane."""
    policy = NetworkParams(
        module="srghn.policies:ResidualMLP", kwargs={"width": width, "blocks": 1}
    )
    mapped, reference = MappedModule(policy, face(7, 3), LANES), build_policy(policy, 7, 3)
    generator, room = torch.Generator().manual_seed(1), mapped.room()
    flat = torch.randn((LANES, sum(room.sizes)), generator=generator) * 0.3
    observations = torch.randn((LANES, 7), generator=generator)
    room.rows[:] = room.spread(flat)
    outputs = mapped(room.tensors, observations, list(range(LANES)))
    order = torch.randperm(LANES, generator=generator)
    room.rows[:] = room.spread(flat[order])
    moved = mapped(room.tensors, observations[order], list(range(LANES)))
    assert torch.equal(moved, outputs[order])
    for lane in (0, 100):
        nn.utils.vector_to_parameters(flat[lane], reference.parameters())
        with torch.no_grad():
            alone = reference(observations[lane : lane + 1])[0]
        assert torch.allclose(alone, outputs[lane], atol=1e-5)


RESIDUAL = NetworkParams(module="srghn.policies:ResidualMLP", kwargs={"width": 32, "blocks": 1})


def test_fewer_lanes_are_taken_only_where_they_give_the_same_bytes() -> None:
    modules = mapped_modules(RESIDUAL.model_dump_json(), face(4, 2), LANES)
    assert [module.lanes for module in modules] == [8, 32, LANES]
    few = MappedModule(RESIDUAL, face(4, 2), 8)
    assert modules[-1].agrees(few, 4)
    call = few._call
    assert call is not None
    few._call = lambda w, x: torch.nextafter(call(w, x), torch.ones(1))
    assert not modules[-1].agrees(few, 4)


def test_lanes_move_together_as_they_end_and_apart_as_they_begin() -> None:
    policies = population(RESIDUAL, pin(EnvParams(id="CartPole-v1")), 20)
    forward = ModuleForward(policies, LANES)
    observations = np.random.default_rng(0).standard_normal((LANES, 4)).astype(np.float32)
    for lane in range(LANES):
        forward.assign(lane, lane % 20)
    expected = forward.outputs(observations)
    for lane in range(LANES):
        if lane % 31:
            forward.assign(lane, IDLE)
    assert forward._module.lanes == 8
    used = np.flatnonzero(forward.who != IDLE)
    assert forward.outputs(observations)[used].tobytes() == expected[used].tobytes()
    forward.assign(5, 5)
    used = np.flatnonzero(forward.who != IDLE)
    assert len(used) == 6
    assert forward.outputs(observations)[used].tobytes() == expected[used].tobytes()


def test_a_partial_call_is_recognised() -> None:
    policy = NetworkParams(kwargs={"hidden": [3], "activation": "gelu"})
    mapped = MappedModule(policy, face(2, 2), LANES)
    assert mapped._call is not None
    ramp = torch.arange(LANES)[:, None] * 1e-3
    assert not mapped._impartial(lambda w, x: x + ramp, 2)


def test_what_cannot_be_mapped_is_called_lane_by_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "branching_policy", sys.modules[__name__])
    mapped = MappedModule(
        NetworkParams(module="branching_policy:Branching", kwargs={}), face(3, 2), 8
    )
    assert mapped._call is None
    room = mapped.room()
    room.rows[2] = room.spread(torch.ones((1, 8)))[0]
    outputs = mapped(room.tensors, torch.eye(8)[:, :3] * -1, [2])
    assert outputs[2].tolist() == [-0.0, -0.0]
    outputs = mapped(room.tensors, torch.eye(8)[:, :3], [2])
    assert outputs[2].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("module", "kwargs"),
    [
        ("srghn.policies:MLP", {"hidden": [3], "activation": "gelu"}),
        ("srghn.policies:ResidualMLP", {"width": 8, "blocks": 1}),
        ("srghn.policies:GRU", {"width": 4}),
    ],
)
def test_calls_without_the_dispatcher_give_the_same_bytes(
    module: str, kwargs: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = NetworkParams(module=module, kwargs=kwargs)
    direct = MappedModule(policy, face(4, 2), 8)
    monkeypatch.setattr("srghn.evaluation.policies.mapped._call_directly", lambda recorded: None)
    recorded = MappedModule(policy, face(4, 2), 8)
    assert direct._call is not None
    assert recorded._call is not None
    assert len(direct._call.graph.nodes) < len(recorded._call.graph.nodes)  # type: ignore[attr-defined]
    generator, room = torch.Generator().manual_seed(1), direct.room()
    room.rows[:] = torch.randn(room.rows.shape, generator=generator)
    observations = torch.randn((8, 4 + direct.state_size), generator=generator)
    used = list(range(8))
    expected = recorded(room.tensors, observations, used)
    assert torch.equal(direct(room.tensors, observations, used), expected)
