"""Alpha that is spent over a stream of candidates which meet one champion."""

from __future__ import annotations

import math


def spent(tried: int) -> float:
    """Share of alpha for the candidate after `tried` others met the same champion.

    The shares 1 / ((t + 1) log(t + 1)^2) over t = 1, 2, ... add up to less than 1 after division
    by 2.11 (their sum is 2.1097), so the chance that any of them passes falsely stays below alpha.
    """
    t = tried + 1
    return 1 / (2.11 * (t + 1) * math.log(t + 1) ** 2)
