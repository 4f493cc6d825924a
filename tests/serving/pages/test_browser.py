"""The pages in a real Chromium, without JavaScript: decide, on a phone, and nothing leaves here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from serving.pages import rendering
from serving.pages.intervals import draw
from serving.registry.database import Database
from serving.registry.records import Who
from serving.tokens import Tokens
from srghn.config import CanaryParams
from tests.browser import WORDS
from tests.serving.pages.test_shown import RANGES, trial
from tests.serving.test_serving_process import ready, wait_for
from tests.serving.test_serving_review import passed

pytestmark = [pytest.mark.browser, pytest.mark.services]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Visit:
    """One browser's visit: what it asked for, and a step at a time."""

    def __init__(self, chromium: Any, url: str, width: int, scheme: str) -> None:
        self.url, self.asked = url, list[str]()
        context = chromium.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            java_script_enabled=False,
        )
        self.page = context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: str) -> None:
        answer = self.page.goto(self.url + path)
        assert answer.status in (200, 401), (path, answer.status)

    def take(self, button: str, reason: str, **fields: str) -> str:
        """Press a button of `/`, give a reason, confirm; what the page says then."""
        self.open("/")
        self.page.get_by_role("link", name=button, exact=True).click()
        for label, value in fields.items():
            self.page.get_by_label(label).fill(value)
        for box in self.page.get_by_role("checkbox").all():
            box.check()
        self.page.get_by_label("Reason").fill(reason)
        self.page.get_by_role("button", name=button.removesuffix("…"), exact=True).click()
        return str(self.page.locator("section.note").first.inner_text())


def test_a_person_approves_pauses_and_rolls_back(home: Any, running: Any, chromium: Any) -> None:
    home.first()
    second = home.second(bias=1.0)
    waiting = passed(home)
    token = Tokens(Database(home.settings.database_url)).add("ann", ["admin"])
    with running(home) as (url, _):
        wait_for(ready(url))
        visit = Visit(chromium, url, 1280, "light")
        visit.open("/")
        visit.page.get_by_role("link", name="Approve…").click()
        visit.page.get_by_label("Token").fill(token)  # who is not signed in is asked first
        visit.page.get_by_role("button", name="Sign in").click()
        assert visit.page.locator(".big").inner_text() == f"Approve version {waiting}?"
        assert "Done." in visit.take("Approve…", "read it all")
        assert home.ledger.canary().version == waiting
        assert "set trial status, by ann" in visit.take("Pause…", "a storm comes")
        assert home.ledger.canary().status == "paused"
        assert "Done." in visit.take("Roll back…", "clients report oscillation")
        assert home.ledger.champion().version == 1
        event = next(e for e in home.ledger.events(newest=True) if e.to_state == "CHAMPION")
        assert (event.actor, event.reason) == ("ann", "clients report oscillation")
        assert home.ledger.version(second).quarantined
        assert home.ledger.canary() is None
        visit.open("/")
        assert "version 1" in visit.page.locator(".big").first.inner_text()
    origin = urlsplit(url).netloc
    assert {urlsplit(asked).netloc for asked in visit.asked if not asked.startswith("data:")} == {
        origin
    }


def test_the_letters_of_a_drawing_have_room(chromium: Any) -> None:
    """As the browser measures them; `LETTER` is only an estimate."""
    base = (Path(rendering.__file__).parent / "base.html.j2").read_text(encoding="utf-8")
    style = base[base.index("<style>") : base.index("</style>")] + "</style>"
    page = chromium.new_page(viewport={"width": 700, "height": 800})
    for low, high in RANGES:
        for outcomes in (9, 130, 100_000):
            drawings = [draw(trial(low, high, outcomes), width) for width in (360, 640)]
            page.set_content(style + "".join(drawings))
            assert page.evaluate(WORDS) == [], (low, high, outcomes)


def test_long_words_push_nothing_out_of_sight(home: Any, running: Any, chromium: Any) -> None:
    home.first()
    new = home._new(bias=5.0)
    rules = CanaryParams().model_dump(mode="json")
    version = home.ledger.register(
        new["digest"],
        env_fingerprint="e" * 64,
        mode="normal",
        run_id="r" * 150,
        manifest={**new["manifest"], "canary": rules},
        who=Who("pipeline" * 12, "frozen " + "x" * 300),
    )
    home.steps.begin(version)
    home.steps.judge(version, summary="passed by " + "y" * 300)
    with running(home) as (url, _):
        wait_for(ready(url))
        for width in (1280, 390):
            visit = Visit(chromium, url, width, "light")
            for path in ("/", f"/versions/{version}", "/versions", "/history"):
                visit.open(path)
                html = visit.page.locator("html")
                assert html.evaluate("e => e.scrollWidth") <= width, (path, width)
                for box in visit.page.locator(".scroll").all():
                    hidden = box.evaluate("e => e.scrollWidth - e.clientWidth")
                    assert hidden <= 0, (path, width, box.inner_text()[:80])
            visit.open("/")
            for name in ("Approve…", "Reject…"):
                place = visit.page.get_by_role("link", name=name).bounding_box()
                assert place["x"] + place["width"] <= width


def test_no_page_is_wider_than_a_phone(home: Any, running: Any, chromium: Any) -> None:
    home.first()
    trial = home.approved(bias=1.0)
    home.steps.play(home.steps.canary(trial), 400.0, 410.0, 12)
    waiting = passed(home)
    pages = [
        "/",
        "/history",
        "/versions",
        f"/versions/{trial}",
        f"/compare?a=1&b={trial}",
        "/episode?id=episode-20",
        "/docs",
        *(f"/decide/{step}?version={waiting}" for step in ("approve", "pause", "weight", "abort")),
    ]
    with running(home) as (url, _):
        wait_for(ready(url))
        for scheme in ("light", "dark"):
            visit = Visit(chromium, url, 390, scheme)
            visit.open("/sign-in")
            visit.page.get_by_role("button", name="Continue as").click()
            for path in pages:
                visit.open(path)
                wide = visit.page.locator("html").evaluate("e => e.scrollWidth")
                assert wide <= 390, (path, wide)
            ink, paper = (
                visit.page.locator("body").evaluate(f"e => getComputedStyle(e).{name}")
                for name in ("color", "backgroundColor")
            )
            bright = [sum(int(n) for n in c[4:-1].split(",")[:3]) for c in (ink, paper)]
            assert (bright[0] > bright[1]) is (scheme == "dark"), (ink, paper)
