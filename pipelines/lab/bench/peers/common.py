"""The shared part of the peers' programs: measures as `pipelines.lab.bench.measure` does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def measure(play: Callable[[], int], spec: dict[str, float]) -> None:
    """Print the best round's steps per CPU-second as JSON; `play` plays the whole work once."""
    play()
    best = 0.0
    for _ in range(int(spec["rounds"])):
        begun, steps = time.process_time(), 0
        while time.process_time() - begun < spec["seconds"]:
            steps += play()
        best = max(best, steps / (time.process_time() - begun))
    sys.stdout.write(json.dumps({"rate": best}) + "\n")
