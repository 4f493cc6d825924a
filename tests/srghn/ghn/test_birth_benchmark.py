"""The benchmark program runs and reports every target; its times are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_birth_benchmark_prints_ratios_and_draws(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    program = pytestconfig.rootpath / "tests" / "benchmarks" / "birth.py"
    picture = tmp_path / "birth.svg"
    ran = subprocess.run(
        [sys.executable, str(program), "--quick", "--json", "--out", str(picture)],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(ran.stdout)
    assert {row["head"] for row in result["policy"]} == {"dense", "chunked", "basis"}
    assert all(row["ratio"] > 0 for row in result["population"])
    genomes = [t for t in result["targets"] if "genome" in t["target"]]
    assert len(result["targets"]) == 5
    assert all(target["hit"] for target in genomes)  # sizes are no matter of the clock
    assert picture.read_text().startswith("<?xml")
