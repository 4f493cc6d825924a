"""The page: whole in itself, accessible, true to the verdict, and proof against hostile text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from regression_suite.gate import judge
from regression_suite.report import plots
from regression_suite.report.film import ARTISTS, legs, record
from regression_suite.report.svg import Drawing, label, ticks
from srghn.config import EnvParams, GateParams
from srghn.envs import EnvVersion, pin
from srghn.inference.verdict import Check, Verdict
from tests.regression_suite.conftest import QUICK, make_candidate

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "line", "circle", "rect", "polyline", "polygon"}


class Page(HTMLParser):
    """Checks nesting and collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str | None] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if given.get("role") == "img":
            self.images.append(given.get("aria-label"))
        self.ids.extend([given["id"]] if given.get("id") else [])  # type: ignore[list-item]
        self.links.extend([given["href"]] if given.get("href") else [])  # type: ignore[list-item]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def judged(
    tmp_path_factory: pytest.TempPathFactory, version: EnvVersion, run_dir: Path
) -> tuple[Verdict, str]:
    """A verdict against a champion, with hostile words in the ledger's events."""
    base = tmp_path_factory.mktemp("report")
    candidate = make_candidate(base, version, run_dir, "a", manifest={"run_id": HOSTILE})
    champion = make_candidate(base, version, run_dir, "b", (0.0, 0.0, 0.3, 1.0))
    params = QUICK
    history = [
        {
            "seq": 1,
            "version": 7,
            "from_state": "REGISTERED",
            "to_state": "EVALUATING",
            "actor": HOSTILE,
            "reason": "",
        }
    ]
    verdict = judge(
        candidate.path,
        version,
        "normal",
        params,
        base / "out",
        incumbent_dir=champion.path,
        run_dir=run_dir,
        history=history,
    )
    return verdict, (base / "out" / "report.html").read_text()


def test_the_page_is_well_formed_and_its_links_lead_somewhere(judged: tuple[Verdict, str]) -> None:
    page = Page(judged[1])
    assert page.open == []
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert len(inner) >= 9
    assert set(inner) <= set(page.ids)


def test_nothing_is_fetched_and_nothing_runs(judged: tuple[Verdict, str]) -> None:
    text = judged[1]
    assert "<script" not in text
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", text)
    assert "@import" not in text


def test_hostile_words_are_shown_as_words(judged: tuple[Verdict, str]) -> None:
    assert judged[1].count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_every_picture_says_what_is_to_be_seen(judged: tuple[Verdict, str]) -> None:
    page = Page(judged[1])
    assert len(page.images) > 12
    assert all(words and len(words) > 10 for words in page.images)


def test_the_page_says_what_the_verdict_says(judged: tuple[Verdict, str]) -> None:
    verdict, text = judged
    assert verdict.passed, verdict.summary
    for words in ("Passed", verdict.bound_by, verdict.candidate_digest, verdict.policy_digest):
        assert words in text
    for check in verdict.checks:
        assert check.name in text
    assert "Every other check clears its threshold by at least this share of its own range" in text
    assert "specialist" in text
    assert "Worst nominal episode: candidate, and champion on the same seed" in text
    assert "<pre>srghn replay 7</pre>" in text


def test_every_drawing_is_valid_xml(judged: tuple[Verdict, str]) -> None:
    drawings = re.findall(r"<svg.*?</svg>", judged[1], flags=re.DOTALL)
    assert len(drawings) > 12
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing.replace("anan", "")


def test_a_refused_candidate_has_a_page_too(
    tmp_path: Path, version: EnvVersion, run_dir: Path
) -> None:
    candidate = make_candidate(tmp_path, version, run_dir, "bad")
    (candidate.path / "policy.onnx").write_bytes(b"?")
    judge(
        candidate.path,
        version,
        "normal",
        GateParams(),
        tmp_path / "out",
        incumbent_dir=None,
        run_dir=run_dir,
    )
    text = (tmp_path / "out" / "report.html").read_text()
    assert Page(text).open == []
    assert "Nothing was played" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("span", "expected"),
    [((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]), ((9, 500), [100, 200, 300, 400, 500]), ((3, 3), [3])],
)
def test_ticks_are_round(span: tuple[float, float], expected: list[float]) -> None:
    assert ticks(*span) == pytest.approx(expected)


def test_labels_are_short() -> None:
    assert [label(v) for v in (0.0, -2.5, 1e6, 0.1 + 0.2)] == ["0", "−2.5", "1000000", "0.3"]


def test_an_axis_without_a_round_number_can_be_drawn() -> None:
    drawing = Drawing(90, 100, (0.1001, 0.1499), (0, 1))
    drawing.axes("x", "y")
    assert "nan" not in drawing.svg("an axis")


def test_equal_values_can_be_drawn() -> None:
    drawing = Drawing(100, 100, (5, 5), (0, 0))
    drawing.axes("x", "y")
    drawing.dot(5, 0, "cand")
    assert "nan" not in drawing.svg("one point")
    same = np.full(30, 500.0)
    assert "better in 0" in plots.scatter(same, same, 500.0)


@pytest.mark.parametrize(("world", "size"), [("CartPole-v1", 4), ("LunarLander-v3", 8)])
def test_a_film_shows_the_world_whatever_a_policy_sees(world: str, size: int) -> None:
    """Wrappers that hide an element hide it from the policy alone."""
    keep = {"path": "srghn.envs.wrappers:Elements", "kwargs": {"keep": [0, 2]}}
    films = []
    for wrappers in ([], [keep]):
        version = pin(EnvParams.model_validate({"id": world, "wrappers": wrappers}))
        film = record(lambda rows: np.zeros(len(rows), np.int64), version, "normal", 3)
        assert film is not None
        assert film.frames.shape[1] == size
        films.append(film)
    np.testing.assert_array_equal(films[0].frames, films[1].frames)
    with version.make("normal") as env:
        first, _ = env.reset(seed=3)
    np.testing.assert_array_equal(films[1].frames[0][[0, 2]], first)


def test_a_world_that_is_only_called_like_one_is_not_drawn(version: EnvVersion) -> None:
    """Its observations are others: CartPoleSwingUp's third element is a cosine."""
    other = replace(version, id="CartPoleSwingUp-v0")
    assert record(lambda rows: np.zeros(len(rows), np.int64), other, "normal", 3) is None


def test_every_artist_draws_a_frame() -> None:
    for draw in ARTISTS.values():
        ElementTree.fromstring(draw(np.linspace(-1, 1, 27).astype(np.float32), "step 3"))


def test_an_ants_legs_are_drawn_where_mujoco_has_them() -> None:
    pytest.importorskip("mujoco")
    kwargs = {"include_cfrc_ext_in_observation": False}
    version = pin(EnvParams.model_validate({"id": "Ant-v5", "kwargs": kwargs}))
    with version.make("normal") as env:
        env.reset(seed=1)
        env.action_space.seed(1)
        for _ in range(40):
            observation, *_ = env.step(env.action_space.sample())
        data = env.unwrapped.data  # type: ignore[attr-defined]
        torso = data.body("torso").xpos
        shins = ("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")
        for leg, shin in zip(legs(np.asarray(observation, np.float64)), shins, strict=True):
            np.testing.assert_allclose(torso + leg[2:].mean(0), data.geom(shin).xpos, atol=1e-5)


def test_a_forest_has_room_for_the_names_of_its_cells() -> None:
    own = "my_company.policies.perturbations:GustOfWind:0.25 failures"
    rows = [_check("observation_noise:0.05 failures"), _check(own)]
    drawing = str(plots.forest(rows, "x", paired=True))
    left = min(
        float(x)
        for x in re.findall(r'class="row" x="([\d.]+)" y="[\d.]+" text-anchor="end"', drawing)
    )
    assert left >= 7 * len("observation_noise:0.05 failures")
    assert "…" in drawing
    assert own not in re.findall(r">([^<]*)</text>", drawing)


def _check(name: str) -> Check:
    return Check(name, "passed", "", value=1.0, threshold=0.0, low=0.5, high=1.5, sense="low >")
