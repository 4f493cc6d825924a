"""Counting: sums over workers, and what is left of one that ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from serving.counts import Counts

_OTHER = """
import sys
from pathlib import Path
from serving.counts import Counts
counts = Counts(Path(sys.argv[1]))
counts.request("champion", 200, 0.003)
counts.inflight(1)
counts.generation(7)
counts.add("load_failures")
print("counted", flush=True)
sys.stdin.read()
"""


def test_workers_are_summed_and_dead_ones_keep_their_counters_alone(tmp_path: Path) -> None:
    own = Counts(tmp_path)
    own.request("champion", 200, 0.0003)
    own.request("none", 422, 2.0)
    command = [sys.executable, "-c", _OTHER, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "counted\n"
    both = own.total()
    assert list(both.requests()) == [("champion", 200, 2.0), ("none", 422, 1.0)]
    assert both.generations[other.pid] == 7
    assert (both.inflight, both.counter("load_failures")) == (1.0, 1.0)
    buckets = dict(both.buckets())
    assert (buckets["0.00025"], buckets["0.0005"], buckets["0.005"]) == (0.0, 1.0, 2.0)
    assert (buckets["1.0"], buckets["+Inf"]) == (2.0, 3.0)
    assert abs(both.seconds - 2.0033) < 1e-9
    other.communicate()
    after = own.total()
    assert list(after.requests()) == list(both.requests())
    assert other.pid not in after.generations
    assert after.inflight == 0.0


def test_a_code_that_is_not_listed_counts_as_a_failure(tmp_path: Path) -> None:
    counts = Counts()
    counts.request("none", 418, 0.1)
    assert list(counts.total().requests()) == [("none", 500, 1.0)]


def test_a_folder_that_a_cleaner_removed_is_made_again(tmp_path: Path) -> None:
    """Workers that run go on counting, and others can start."""
    folder = tmp_path / "srghn-counts-x"
    for _ in range(2):
        counts = Counts(folder)
        shutil.rmtree(folder)
        counts.request("champion", 200, 0.1)
        assert list(counts.total().requests()) == [("champion", 200, 1.0)]
