"""What `tests/conftest.py` does for a whole run: its order, and the results of long tests."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests import conftest
from tests.forks import forked

ROOT = Path(__file__).parents[1]


def test_the_longest_files_begin_first_and_the_others_stay_in_order() -> None:
    second, first = (ROOT / "tests" / name for name in (conftest.FIRST[1], conftest.FIRST[0]))
    others = [ROOT / "tests" / name for name in ("test_structure.py", "test_extras.py")]
    items: Any = [SimpleNamespace(path=path) for path in (others[0], second, others[1], first)]
    conftest.pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [first, second, *others]


def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    """Torch's are not there; after other tests, which had begun them, one hung now and then."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.ones(10**6).tanh()
        child = forked(lambda: torch.ones(10**6).tanh())
        child.join(60)
        child.kill()
        child.join()
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


def test_results_are_a_row_for_each_test(tmp_path: Path) -> None:
    """As `make long` asks for them."""
    name = "tests/test_structure.py::test_no_source_file_is_long"
    table = tmp_path / "results.csv"
    options = ["-p", "no:cacheprovider", "-n0", "--results", str(table), name]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=ROOT, check=True, capture_output=True
    )
    with table.open(encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["test"], row["outcome"]) == (name, "passed")
    assert int(row["seconds"]) < 60
