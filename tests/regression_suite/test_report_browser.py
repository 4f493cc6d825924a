"""The report in a real browser: on a phone, on paper, by keyboard, and without any request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regression_suite.gate import judge
from regression_suite.report import plots
from srghn.envs import EnvVersion
from srghn.inference.verdict import Check
from tests.browser import WORDS
from tests.regression_suite.conftest import QUICK, make_candidate

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, version: EnvVersion, run_dir: Path
) -> Iterator[tuple[Any, list[str]]]:
    """A report against a champion, opened at 390 px without a network; what it asked for."""
    from playwright.sync_api import sync_playwright

    base = tmp_path_factory.mktemp("browser")
    candidate = make_candidate(base, version, run_dir, "a")
    champion = make_candidate(base, version, run_dir, "b", (0.0, 0.0, 0.3, 1.0))
    params = QUICK.model_copy(update={"return_high": 480.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regression_suite.again.judge_again", _unplayed)
        judge(
            candidate.path, version, "normal", params, base / "out",
            incumbent_dir=champion.path, run_dir=run_dir,
        )  # fmt: skip
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        shown = browser.new_page(viewport={"width": 390, "height": 844}, offline=True)
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((base / "out" / "report.html").as_uri())
        yield shown, asked
        browser.close()


def _unplayed(*_: object) -> Any:
    return Check("same twice", "passed", "not played again here")


def test_it_fits_a_phone_and_asks_for_nothing(page: tuple[Any, list[str]]) -> None:
    shown, asked = page
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    small = shown.evaluate(
        """[...document.querySelectorAll('main p, main td, main th, main dd')]
           .filter(e => e.innerText && parseFloat(getComputedStyle(e).fontSize) < 12).length"""
    )
    assert small == 0


def test_nothing_is_cut_on_a_phone_or_beside_another_word(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    hidden = """[...document.querySelectorAll('.scroll')].filter(
        e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"""
    letters = """[...document.querySelectorAll('svg text')].map(
        e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a).filter(h => h < 11)"""
    for width in (390, 1200):
        shown.set_viewport_size({"width": width, "height": 844})
        assert shown.evaluate(hidden) == []
        assert shown.evaluate(WORDS) == []
        assert shown.evaluate(letters) == []
    shown.set_viewport_size({"width": 390, "height": 844})


def test_the_letters_of_every_drawing_have_room(page: tuple[Any, list[str]]) -> None:
    shown = page[0].context.browser.new_page(viewport={"width": 390, "height": 844})
    style = (Path(plots.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    name = "my_company.policies.perturbations:GustOfWind:0.25 failures"
    for size in (0.004, 1.0, 500.0, -3254.72, 180_000.0):
        checks = [
            Check(n, "passed", "", value=size, threshold=-size, low=0.3 * size, high=1.7 * size)
            for n in ("primary", name)
        ]
        label, xs = "mutation rate: mean, q10 to q90 of individuals", [0.0, 9_000.0, 20_000.0]
        generations = plots.Series(label, xs, [0.0, size, size])
        switches = [(float(at), "wired_wrong") for at in range(100, 20_000, 900)]
        drawings = [
            plots.forest(checks, "difference to champion, in return", paired=True),
            plots.waterfall(size * np.linspace(-1, 1, 600), abs(size)),
            plots.over_generations(generations, switches),
        ]
        shown.set_content(f"<style>{style}</style><main><section>{''.join(drawings)}</section>")
        for width in (390, 1200):
            shown.set_viewport_size({"width": width, "height": 844})
            assert shown.evaluate(WORDS) == [], (size, width)
    shown.close()


def test_the_points_of_the_primary_check_are_seen_on_a_phone(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    points = """[...document.querySelectorAll('#primary svg[aria-label^="Forest"]')].map(
        svg => [...svg.querySelectorAll('circle')].map(e => e.getBoundingClientRect())
        .filter(box => box.width > 0 && box.left >= 0 && box.right <= innerWidth).length)"""
    drawn = shown.locator("#primary .narrow-drawing svg[aria-label^=Forest]")
    rows = [drawn.nth(n).locator("text.row").count() for n in range(drawn.count())]
    assert len(rows) == 2
    assert min(rows) > 1
    assert shown.evaluate(points) == [0, rows[0], 0, rows[1]]  # of each pair the phone's is shown


def test_returns_outside_the_range_are_told_by_cell(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    told = shown.get_by_role("region", name="Returns outside the declared range")
    rows = [row.inner_text().split() for row in told.locator("tbody tr").all()]
    assert rows[0][0] == "primary"
    assert "100 of 100" in " ".join(rows[0])
    assert "480" in shown.locator("#distribution").inner_text()


def test_a_screen_reader_finds_headings_pictures_and_tables(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    levels = shown.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert shown.evaluate("document.documentElement.lang") == "en"
    unnamed = """[...document.querySelectorAll('svg')].filter(
        e => e.getAttribute('role') !== 'img' || !e.getAttribute('aria-label')).length"""
    assert shown.evaluate(unnamed) == 0
    bare = """[...document.querySelectorAll('table')].filter(t => !t.querySelector('th[scope]')
        ).length + [...document.querySelectorAll('th:not([scope])')].length"""
    assert shown.evaluate(bare) == 0


def test_it_is_read_by_keyboard(page: tuple[Any, list[str]]) -> None:
    """Every box that scrolls takes the focus and has a name; the first stop skips to the parts."""
    shown, _ = page
    boxes = """[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 &&
        ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
        .filter(e => e.tabIndex < 0 || !e.getAttribute('aria-label'))
        .map(e => e.outerHTML.slice(0, 80))"""
    assert shown.evaluate(boxes) == []
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.innerText") == "Skip to the parts of the report"
    shown.keyboard.press("Enter")
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('href')") == "#checks"
    outline = shown.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_films_stand_side_by_side_where_there_is_room(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    tops = "[...document.querySelectorAll('.films > div')].map(e => e.getBoundingClientRect().top)"
    narrow = shown.evaluate(tops)
    assert len(narrow) == 2
    assert narrow[0] < narrow[1]
    shown.set_viewport_size({"width": 1200, "height": 900})
    wide = shown.evaluate(tops)
    shown.set_viewport_size({"width": 390, "height": 844})
    assert wide[0] == wide[1]


def test_it_prints_in_black_on_white_with_every_part(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    shown.emulate_media(media="print", color_scheme="dark")
    shown.set_viewport_size({"width": 760, "height": 1000})
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    clipped = """[...document.querySelectorAll('.scroll')].filter(
        e => getComputedStyle(e).overflowX !== 'visible').length"""
    assert shown.evaluate(clipped) == 0
    assert shown.evaluate("document.documentElement.scrollWidth") <= 760
    assert shown.pdf().startswith(b"%PDF")
    shown.emulate_media(media="screen")
