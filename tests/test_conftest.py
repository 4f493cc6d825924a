"""What `tests/conftest.py` does for a whole run: its order, and the results of long tests."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import conftest

ROOT = Path(__file__).parents[1]


def test_the_longest_files_begin_first_and_the_others_stay_in_order() -> None:
    second, first = (ROOT / "tests" / name for name in (conftest.FIRST[1], conftest.FIRST[0]))
    others = [ROOT / "tests" / name for name in ("test_structure.py", "test_extras.py")]
    items: Any = [SimpleNamespace(path=path) for path in (others[0], second, others[1], first)]
    conftest.pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [first, second, *others]


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
