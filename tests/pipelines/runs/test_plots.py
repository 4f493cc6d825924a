"""DVC's page of plots stands alone: no library is fetched, and the curves are drawn."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from dvc_render.html import render_html
from dvc_render.vega import VegaRenderer

from tests.pipelines.conftest import Home

TEMPLATE = Path(str(files("pipelines"))) / "runs" / "plots.html"


def page(folder: Path) -> Path:
    """As `dvc plots diff` makes it: two revisions of a plot with two columns."""
    points: list[dict[str, Any]] = [
        {"generation": str(g), "value": str(g * step + 1.5), "field": field, "rev": rev}
        for rev, step in (("HEAD", 1), ("workspace", 2))
        for field in ("best", "mean")
        for g in range(20)
    ]
    renderer = VegaRenderer(
        points, "fitness", x="generation", y="value", title="fitness", template="linear",
        anchors_y_definitions=[{"filename": "g.csv", "field": f} for f in ("best", "mean")],
        revs_with_datapoints=["HEAD", "workspace"],
    )  # fmt: skip
    return Path(render_html([renderer], folder / "index.html", html_template=str(TEMPLATE)))


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    text = page(tmp_path).read_text()
    assert "src=" not in text
    assert "http" not in text.replace("https://vega.github.io/schema", "")


@pytest.mark.browser
def test_the_page_draws_every_revision_and_column_offline(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        shown = browser.new_page(viewport={"width": 390, "height": 800}, offline=True)
        shown.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.goto(page(tmp_path).as_uri())
        lines = shown.locator("polyline").count()
        keys = shown.locator(".key span").all_inner_texts()
        wide = shown.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert errors == []
    assert lines == 4
    assert sorted(keys) == ["HEAD, best", "HEAD, mean", "workspace, best", "workspace, mean"]
    assert wide <= 390
    assert [url for url in asked if not url.startswith("file:")] == []


@pytest.mark.browser
def test_on_a_phone_text_is_large_enough_and_ticks_are_round(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        shown = browser.new_page(viewport={"width": 390, "height": 800}, offline=True)
        shown.goto(page(tmp_path).as_uri())
        across = shown.locator("svg text[text-anchor=middle]").all_text_contents()
        up = shown.locator("svg text[text-anchor=end]").all_text_contents()
        high = shown.evaluate("document.querySelector('svg text').getBoundingClientRect().height")
        spans = "[[0, 99], [3, 302], [0.2, 0.9], [-2, 2], [5, 5.0004], [10000, 12000]]"
        drawn = shown.evaluate(f"{spans}.map(each => ticks(each).map(number))")
        few = shown.evaluate("ticks([0, 2], 1)")
        browser.close()
    assert across == ["0", "5", "10", "15", "generation"]
    assert up == ["10", "20", "30"]
    assert high >= 10
    assert drawn == [
        ["0", "20", "40", "60", "80"],
        ["100", "200", "300"],
        ["0.2", "0.4", "0.6", "0.8"],
        ["-2", "-1", "0", "1", "2"],
        ["5", "5.0001", "5.0002", "5.0003", "5.0004"],
        ["10000", "10500", "11000", "11500", "12000"],
    ]
    assert few == [0, 1, 2]


def test_a_workspace_has_the_page(home: Home) -> None:
    """One that was made before has it from its next stage on."""
    folder = home.workspace.root / ".dvc"
    assert (folder / "plots.html").read_text() == TEMPLATE.read_text()
    (folder / "plots.html").unlink()
    home.workspace.dvc_config.write_text("[core]\n    no_scm = true\n")
    home.workspace.run_stage("pin", home.settings)
    assert "html_template = plots.html" in home.workspace.dvc_config.read_text()
    assert (folder / "plots.html").is_file()
