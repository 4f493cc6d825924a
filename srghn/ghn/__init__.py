"""The Self-Referential Graph HyperNetwork: one genome makes networks, and its own children.

>>> import numpy as np, torch
>>> from srghn.ghn import GHN, GHNParams
>>> from srghn.graph import trace
>>> from srghn.policies import MLP
>>> ghn = GHN(GHNParams(), trace(MLP(4, 2), torch.zeros(1, 4)))
>>> ghn
GHN(dense head, genome of 2241, 1 target of 58)
>>> parents = np.stack([ghn.init(i) for i in range(8)])
>>> children, rates = ghn.mutate(parents, noise_seeds=range(8))
>>> ghn.generate(children).shape
(8, 58)
"""

from srghn.config import GHNParams
from srghn.ghn.model import GHN

__all__ = ["GHN", "GHNParams"]
