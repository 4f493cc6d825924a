"""Graphs and hypernetworks that several tests use."""

import pytest
import torch

from srghn.config import GHNParams
from srghn.ghn import GHN
from srghn.graph import CompGraph, trace
from srghn.policies import MLP

HEADS = ("dense", "chunked", "basis", "dct")


def mlp_graph(inputs: int = 4, outputs: int = 2, hidden: tuple[int, ...] = (8,)) -> CompGraph:
    return trace(MLP(inputs, outputs, hidden), torch.zeros(1, inputs))


@pytest.fixture(scope="session")
def small() -> CompGraph:
    return mlp_graph()


@pytest.fixture(params=HEADS)
def ghn(request: pytest.FixtureRequest, small: CompGraph) -> GHN:
    return GHN(GHNParams(head=request.param), small, seed=3)
