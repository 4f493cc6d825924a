"""When two evaluations are the same."""

from __future__ import annotations

from srghn.evaluation.base import Evaluation


def same(a: Evaluation, b: Evaluation) -> bool:
    """Equal to the bit, in all but how often a worker was lost."""
    return (
        a.returns.tobytes() == b.returns.tobytes()
        and a.lengths.tobytes() == b.lengths.tobytes()
        and a.steps == b.steps
        and a.crashes == b.crashes
    )
