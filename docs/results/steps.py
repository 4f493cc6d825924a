"""How many directions the step of a policy's weights has: of LunarLander's networks, by settings.

Usage: python docs/results/steps.py
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from srghn.config import parse_params
from srghn.envs import pin
from srghn.evolution.self_referential import make_ghn
from srghn.ghn import GHN

RATE, MOTHERS, CHILDREN = 0.1, 10, 500
NETWORK = {"kwargs": {"hidden": [16], "activation": "tanh"}}


def main() -> None:
    lines = ["| `ghn.hidden` | `ghn.basis_width` | values in the genome | directions of 128 |"]
    lines.append("|---|---|---|---|")
    for hidden, basis in ((16, 16), (16, 128), (64, 16), (64, 64), (128, 16), (128, 128)):
        ghn = _ghn({"hidden": hidden, "basis_width": basis})
        count = float(np.mean([_directions(ghn, mother) for mother in range(MOTHERS)]))
        lines.append(f"| {hidden} | {basis} | {ghn.genome_size:,} | {count:.1f} |")
    drawn = np.random.default_rng(0).standard_normal((CHILDREN, 128))
    lines.append(f"| a plain GA | | 212 | {_participation(drawn):.1f} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _ghn(settings: dict[str, int]) -> GHN:
    given = {"env": {"id": "LunarLander-v3"}, "network": NETWORK, "ghn": settings}
    params = parse_params(given, "steps")
    return make_ghn(params, pin(params.env).interface)


def _directions(ghn: GHN, mother: int) -> float:
    """Those of the first layer's 8 times 16 weights, over the children of one founder."""
    parents = np.repeat(ghn.init(mother)[None], CHILDREN, axis=0)
    children, _ = ghn.mutate(parents, np.arange(CHILDREN), rates=RATE)
    return _participation((ghn.generate(children) - ghn.generate(parents))[:, :128])


def _participation(steps: NDArray[np.floating]) -> float:
    """(sum of the covariance's eigenvalues)^2 / sum of their squares: their number, were all equal.

    `steps` (n, d). With finitely many steps it is below d even where no direction is preferred.
    """
    spread = np.linalg.eigvalsh(np.cov(steps.T))
    return float(spread.sum() ** 2 / (spread**2).sum())


if __name__ == "__main__":
    main()
