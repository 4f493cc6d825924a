"""docs/gate.md names, for each measured fault, the tests that fail without its mend: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_fault_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "::test_" in line]
    assert len(rows) == 12
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", "\n".join(rows)):
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), name
