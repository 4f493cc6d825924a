"""A control loop at 100 Hz: asks the server at every step and reports how regularly it ran.

    python docs/examples/control_loop.py http://127.0.0.1:8000 --seconds 10

Nothing that the server does or does not ends the loop. If no action arrives within the step's
deadline, the last one is used again, for at most `HOLD` seconds; then the fallback is, an action
that is safe for this plant. If the server refuses, the fallback is used at once, and the next step
begins another episode: the refused one may not go on, and has no outcome.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from typing import Any

from serving.client import Client, ClientError, NotAnswered, Refused

logger = logging.getLogger("control_loop")

#: Seconds for which the last action is safe without a new one.
HOLD = 0.1


def observe(size: int, step: int) -> list[float]:
    """Put the plant's observation here."""
    return [0.01 * (step % 7)] * size


def apply(action: Any) -> float:
    """Give the action to the plant here; returns the reward."""
    return 1.0


def run(url: str, seconds: float, hertz: float, size: int, fallback: Any = 0) -> dict[str, float]:
    """Run one episode; returns figures in steps and milliseconds.

    `missed` counts steps without an answer in time, `refused` those that the server refused.
    `late` is how long after its time a step began, `call` the time of a call. `size` is the length
    of an observation, `hertz` the steps a second.
    """
    period, missed, refused, action, fresh = 1 / hertz, 0, 0, fallback, 0.0
    problem: ClientError | None = None
    late, calls = [], []
    with Client(url) as client:
        episode = client.episode()
        due = begun = time.perf_counter()
        while due - begun < seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            late.append(1e3 * (time.perf_counter() - due))
            observation, before, problem = observe(size, len(late)), problem, None
            asked = time.perf_counter()
            try:
                action, fresh = episode.act(observation, deadline=0.8 * period), asked
            except NotAnswered as error:
                missed, problem = missed + 1, error
                if asked - fresh > HOLD:
                    action = fallback
            except Refused as error:
                refused, problem = refused + 1, error
                action, episode = fallback, client.episode()
            calls.append(1e3 * (time.perf_counter() - asked))
            episode.reward(apply(action))
            if type(problem) is not type(before):  # once, not a hundred times a second
                logger.warning("%s", problem or "the server answers again")
            due = max(due + period, time.perf_counter())  # steps that were lost are not made up
        try:
            episode.end()
        except ClientError as error:
            logger.warning("the outcome is lost: %s", error)
    return {
        "steps": len(late),
        "missed": missed,
        "refused": refused,
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
    parser.add_argument("--fallback", type=json.loads, default=0, help="safe action, as JSON")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s")
    found = run(options.url, options.seconds, options.hertz, options.size, options.fallback)
    print("  ".join(f"{name} {value:g}" for name, value in found.items()))  # noqa: T201


if __name__ == "__main__":
    main()
