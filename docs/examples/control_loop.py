"""A control loop at 100 Hz: asks the server at every step and reports how regularly it ran.

    python docs/examples/control_loop.py http://127.0.0.1:8000 --seconds 10

If no action arrives within the step's deadline, the last one is used again: the loop must go on.
"""

from __future__ import annotations

import argparse
import statistics
import time

from serving.client import Client, NotAnswered


def run(url: str, seconds: float, hertz: float, size: int) -> dict[str, float]:
    """Run one episode; returns figures in steps and milliseconds.

    `missed` counts steps without a new action. `late` is how long after its time a step began,
    `call` the time of a call. `size` is the length of an observation, `hertz` the steps a second.
    """
    period = 1 / hertz
    late, calls, missed, action = [], [], 0, None
    with Client(url) as client, client.episode() as episode:
        due = begun = time.perf_counter()
        while due - begun < seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            late.append(1e3 * (time.perf_counter() - due))
            observation = [0.01 * (len(late) % 7)] * size  # put the plant's observation here
            asked = time.perf_counter()
            try:
                action = episode.act(observation, deadline=0.8 * period)
            except NotAnswered:
                missed += 1
            calls.append(1e3 * (time.perf_counter() - asked))
            episode.reward(1.0 if action is not None else 0.0)
            due += period
    return {
        "steps": len(late),
        "missed": missed,
        "late_p50_ms": round(statistics.median(late), 3),
        "late_p99_ms": round(sorted(late)[int(0.99 * (len(late) - 1))], 3),
        "late_max_ms": round(max(late), 3),
        "call_p50_ms": round(statistics.median(calls), 3),
        "call_p99_ms": round(sorted(calls)[int(0.99 * (len(calls) - 1))], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--hertz", type=float, default=100.0)
    parser.add_argument("--size", type=int, default=4, help="numbers of an observation")
    options = parser.parse_args()
    found = run(options.url, options.seconds, options.hertz, options.size)
    print("  ".join(f"{name} {value:g}" for name, value in found.items()))  # noqa: T201


if __name__ == "__main__":
    main()
