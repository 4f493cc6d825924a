"""Two policies on the same episodes: a page, no verdict, the same bytes again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regression_suite.compare import compare
from regression_suite.gate import judge
from srghn.config import EnvParams
from srghn.envs import EnvVersion, pin
from srghn.errors import ArtefactError, ConfigError
from tests.regression_suite.conftest import QUICK, Make
from tests.regression_suite.test_report import Page

WEAK = (0.0, 0.0, 0.3, 1.0)


def test_the_page_compares_and_judges_nobody(
    make: Make, version: EnvVersion, tmp_path: Path
) -> None:
    good, weak = make("good"), make("weak", WEAK)
    found = [
        compare(a.path, b.path, version, "normal", QUICK, tmp_path / "out", names=names)
        for a, b, names in (
            (good, weak, ("version 3", "version 2")),
            (weak, good, ("version 2", "version 3")),
            (good, weak, ("version 3", "version 2")),
        )
    ]
    there, back, again = found
    assert there == again
    assert there.difference is not None
    assert back.difference is not None
    assert there.difference.low > 0
    assert back.difference.value == -there.difference.value
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "comparison.html", "comparison.json", "episodes.parquet",
    ]  # fmt: skip
    text = (tmp_path / "out" / "comparison.html").read_text()
    page = Page(text)
    assert page.open == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    for words in ("Version 3 and version 2 on the same episodes", "holds no verdict"):
        assert words in text
    for words in ("candidate", "champion", "Passed", "attempt"):
        assert words not in text.replace("candidates", "").partition("</style>")[2]
    numbers = json.loads((tmp_path / "out" / "comparison.json").read_bytes())
    assert numbers["compared"] == [good.digest, weak.digest]
    assert "verdict" not in numbers


def test_policies_of_another_interface_are_refused(
    make: Make, version: EnvVersion, tmp_path: Path
) -> None:
    other = pin(EnvParams(id="Acrobot-v1"))
    with pytest.raises(ArtefactError, match="compare policies of one interface"):
        compare(make("a").path, make("b").path, other, "normal", QUICK, tmp_path / "out")


def test_progress_that_cannot_be_called_is_refused_before_anything_is_played(
    make: Make, version: EnvVersion, tmp_path: Path
) -> None:
    folder, out = make("a").path, tmp_path / "out"
    given = folder, version, "normal", QUICK, out
    with pytest.raises(ConfigError, match="compare: progress: expected a function, got 3"):
        compare(folder, folder, version, "normal", QUICK, out, progress=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="judge: progress: expected a function, got 3"):
        judge(*given, incumbent_dir=None, run_dir=None, progress=3)  # type: ignore[arg-type]
    assert not out.exists()
