"""Episodes as data frames, with what each row must be: the gate's own, and those of service."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from regression_suite.episodes import EPISODES, Played

OUTCOMES = ("n", "episode", "version", "return", "length")


def episode_frame(played: Sequence[Played]) -> pd.DataFrame:
    """The gate's episodes, the champion's beside the candidate's; NaN where there is none."""
    parts = []
    for cell in played:
        nobody = np.full(len(cell), np.nan)
        theirs, steps = cell.incumbent_returns, cell.incumbent_lengths
        columns = {
            "cell": cell.cell.name,
            "seed": cell.seeds,
            "candidate_return": cell.returns,
            "candidate_length": cell.lengths.astype(np.float64),
            "incumbent_return": nobody if theirs is None else theirs,
            "incumbent_length": nobody if steps is None else steps.astype(np.float64),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)[list(EPISODES)]


def outcome_frame(outcomes: Sequence[Any]) -> pd.DataFrame:
    """Outcomes of the ledger, a row each."""
    rows = [(o.n, o.episode_id, o.version, o.return_, o.length) for o in outcomes]
    return pd.DataFrame(rows, columns=list(OUTCOMES))


def episode_requirements(frame: pd.DataFrame, limit: int) -> pd.DataFrame:
    """A column of truth values per requirement, named by what must hold."""
    crashed = np.isneginf(frame["candidate_return"])
    paired = frame["incumbent_return"].notna()
    alone = ~paired.groupby(frame["cell"]).transform("any")
    return frame[["cell", "seed"]].assign(
        **{
            "a seed is played once in a cell": ~frame.duplicated(["cell", "seed"]),
            "a return is a number, or minus infinity for a crash": (
                frame["candidate_return"].notna() & ~np.isposinf(frame["candidate_return"])
            ),
            f"an episode has 1 to {limit} steps, or crashed": (
                frame["candidate_length"].between(1, limit) | crashed
            ),
            "where a champion plays, it plays every episode": paired | alone,
        }
    )


def outcome_requirements(
    frame: pd.DataFrame, limit: int, versions: Collection[int]
) -> pd.DataFrame:
    """As `episode_requirements`; `versions` are those in the ledger."""
    finite = pd.Series(np.isfinite(frame["return"].to_numpy(np.float64)), index=frame.index)
    return frame[["n", "episode"]].assign(
        **{
            "an episode ends once": ~frame.duplicated(["episode"]),
            "a return is a finite number": finite,
            f"an episode has 1 to {limit} steps": frame["length"].between(1, limit),
            "its version is in the ledger": frame["version"].isin(list(versions)),
        }
    )
