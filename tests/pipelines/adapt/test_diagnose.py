"""Which pinned world explains service; or none, and then nobody guesses."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.adapt import diagnose as diagnose_module
from pipelines.adapt.diagnose import (
    ALPHA,
    ENOUGH,
    MOST,
    OBSERVED,
    Diagnosis,
    Likeness,
    compare_samples,
    conclude,
    diagnose,
    places,
    seen,
    taken,
)
from pipelines.adapt.export import export
from pipelines.adapt.play import play
from pipelines.adapt.steps import Adaptation
from serving.control.samples import step_of
from serving.control.watch import Watch
from serving.registry.ledger import Ledger
from serving.registry.records import StartRow
from serving.registry.samples import Sample, keep
from serving.trial.rules import TrialRules
from srghn.config import Switch
from srghn.envs import parse, pin
from srghn.errors import ConfigError
from srghn.inference.sameness import compare
from tests.conftest import Srghn
from tests.pipelines.adapt.conftest import ANN, Served


def diagnosed(served: Served) -> Adaptation:
    adaptation = Adaptation(served.release, "policy", lambda workspace, approve: None)
    said = adaptation.step()
    assert said is not None
    assert said.startswith("diagnosis: ")
    return adaptation


def diagnosed_as(found: str, served: Served, monkeypatch: pytest.MonkeyPatch) -> Adaptation:
    """After an alarm and a first diagnosis; while `conclude` is patched, none finds a place."""

    def unclear(evidence: list[Likeness], *rest: Any) -> Diagnosis:
        return replace(conclude(evidence, *rest), found=found, mode=None)

    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20)
    served.meet("flipped", ENOUGH)
    monkeypatch.setattr(diagnose_module, "conclude", unclear)
    return diagnosed(served)


def test_a_known_mode_is_named_and_becomes_the_mode_of_service(served: Served) -> None:
    served.first(bias=0.3)
    served.rules()
    served.meet("normal", 30)
    served.meet("flipped", 20)
    adaptation = Adaptation(served.release, "policy", lambda workspace, approve: None)
    alarm = adaptation.alarm()
    assert alarm is not None
    assert adaptation.step() is None  # what raised the alarm is no evidence, and more is needed
    served.meet("flipped", ENOUGH)
    diagnosed(served)
    [event] = served.ledger.notes("policy", "diagnosis")
    said = served.ledger.evidence(str(event.evidence_sha256))
    assert (said["found"], said["mode"], said["episodes"]) == ("known", "flipped", ENOUGH)
    assert said["drift"] == alarm.event.hash
    assert {(each["mode"], each["fits"]) for each in said["evidence"]} == {
        ("normal", False),
        ("flipped", True),
    }
    assert served.ledger.service_mode() == "flipped"
    assert Watch(served.ledger).view().diagnosis == event.reason
    assert served.ledger.verify()


def test_an_alarm_by_a_clock_that_was_far_ahead_is_diagnosed(served: Served) -> None:
    """It waited for episodes that began after its time, which is years away."""
    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20, look=False)
    clock = lambda: time.time() + 3e8  # noqa: E731
    Watch(Ledger(served.settings.database_url, clock=clock)).look()
    served.meet("flipped", ENOUGH)
    adaptation = diagnosed(served)
    [event] = served.ledger.notes("policy", "diagnosis")
    assert served.ledger.evidence(str(event.evidence_sha256))["episodes"] == ENOUGH
    alarm = adaptation.alarm()
    assert alarm is not None
    assert adaptation.waits(alarm).startswith(f"{ENOUGH} of {ENOUGH} episodes")
    earlier = replace(alarm, start=None)  # one of an earlier version goes by the time
    assert adaptation.waits(earlier).startswith("0 of 0 episodes")


def test_the_rules_may_keep_the_mode_of_service(served: Served) -> None:
    served.first(bias=0.3)
    served.rules(set_mode=False)
    served.meet("flipped", 20)
    served.meet("flipped", ENOUGH)
    diagnosed(served)
    assert served.ledger.service_mode() == "normal"


def test_a_pole_of_another_length_is_no_world_of_the_sandbox(served: Served) -> None:
    """Returns fell, and no pinned world explains them: it is told, and nothing comes of it."""
    served.first(bias=0.3)
    served.rules(act="run")
    served.meet("normal", 20, moved="pole_length:16")
    served.meet("normal", ENOUGH, moved="pole_length:16")
    adaptation = diagnosed(served)
    [event] = served.ledger.notes("policy", "diagnosis")
    assert served.ledger.evidence(str(event.evidence_sha256))["found"] == "none"
    assert "like no pinned environment" in event.reason
    assert served.ledger.service_mode() == "normal"
    assert adaptation.step() is None
    assert served.ledger.notes("policy", "adapt") == []


def test_service_as_promised_is_no_other_world(served: Served) -> None:
    """A few bad episodes raised the alarm, and then all was well; the watch has not seen it yet."""
    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20)
    served.meet("normal", ENOUGH, look=False)
    diagnosed(served)
    [event] = served.ledger.notes("policy", "diagnosis")
    assert served.ledger.evidence(str(event.evidence_sha256))["found"] == "unchanged"


def test_a_champion_in_a_mode_that_it_did_not_pass_in_is_no_peace(served: Served) -> None:
    """The mode of service was set, by an earlier diagnosis or a person, and nobody serves it."""
    served.first(bias=0.3)
    served.rules()
    served.ledger.set_mode("policy", "flipped", who=ANN)
    served.meet("flipped", 20)
    served.meet("flipped", ENOUGH)
    diagnosed(served)
    [event] = served.ledger.notes("policy", "diagnosis")
    said = served.ledger.evidence(str(event.evidence_sha256))
    assert (said["found"], said["mode"]) == ("known", "flipped")


def test_worlds_that_behave_alike_are_one_place(served: Served) -> None:
    """Another schedule is another fingerprint, and the same world."""
    served.first(bias=0.3)
    env = served.world.params.model_copy(
        update={"schedule": (Switch(generation=9, mode="flipped"),)}
    )
    other = pin(env)
    other.save(served.settings.home / "envs" / f"{other.fingerprint}.json")
    champion = served.ledger.champion()
    assert champion is not None
    found = places(served.release, champion)
    assert [(place.world.fingerprint, place.mode) for place in found] == [
        (served.world.fingerprint, "normal"),
        (served.world.fingerprint, "flipped"),
    ]


def row(n: int, ended: bool) -> StartRow:
    return StartRow(
        n, "policy", None, f"e{n}", 1, 1, 0, 0.0, 0.0, 0.0, False,
        n if ended else None, None, 1.0 if ended else None, 1, True, None, False,
    )  # fmt: skip


def test_episodes_are_taken_in_order_of_start() -> None:
    """Those that end early are not what service is like: each must be over, and nearly all end."""
    rows = [row(n, True) for n in range(ENOUGH)]
    assert taken(rows[:-1], 1.0) is None
    assert taken(rows, 1.0) == rows
    late = [row(n, n % 4 != 0) for n in range(200)]  # 150 ended, and a quarter still run
    assert taken(late, 1.0) is None
    assert taken([*rows, *(row(n, False) for n in range(900, 908))], 1.0) == rows
    lost = [row(n, n > 0) for n in range(ENOUGH)]
    assert taken(lost, 0.0) is None  # it may still end
    assert taken(lost, 1.0) == lost[1:]
    ahead = replace(lost[0], started_at=1e9, deadline=1e9 + 60)  # the clock was wrong
    assert taken([ahead, *lost[1:]], 1.0) == lost[1:]


def test_the_right_world_is_kept_while_clients_play_at_once() -> None:
    """Few episodes are long; those still running at a look must not be left out."""
    rejected = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def lengths(count: int, rng: np.random.Generator = rng) -> np.ndarray[Any, Any]:
            return np.where(rng.random(count) < 0.05, 500, rng.integers(9, 60, count))

        starts = np.sort(rng.uniform(0, 500, MOST))
        long = lengths(MOST)
        found = None
        for now in range(0, 1500, 25):
            rows = [
                replace(row(n, at + length <= now), deadline=1e9, length=int(length))
                for n, (at, length) in enumerate(zip(starts, long, strict=True))
                if at <= now
            ]
            if (found := taken(rows, float(now))) is not None:
                break
        assert found is not None
        service = np.array([[float(each.length or 0)] * 2 for each in found])
        played = np.repeat(lengths(400)[:, None].astype(float), 2, axis=1)
        rejected += compare(service, played, rng).p <= ALPHA
    assert rejected <= 1


@pytest.mark.parametrize("found", ["unchanged", "none"])
def test_what_names_no_place_is_asked_again(
    found: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mild shift shows only in more episodes; what was told is not told again."""
    adaptation = diagnosed_as(found, served, monkeypatch)
    served.meet("flipped", ENOUGH)
    assert adaptation.step() is None
    assert len(served.ledger.notes("policy", "diagnosis")) == 2


def test_what_is_unclear_is_asked_again_with_twice_the_episodes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptation = diagnosed_as("ambiguous", served, monkeypatch)
    monkeypatch.setattr(diagnose_module, "conclude", conclude)
    served.meet("flipped", ENOUGH - 1)
    assert adaptation.step() is None
    served.meet("flipped", 1)
    diagnosed(served)
    said = [
        served.ledger.evidence(str(event.evidence_sha256))
        for event in served.ledger.notes("policy", "diagnosis")
    ]
    assert [(each["found"], each["episodes"]) for each in said] == [
        ("ambiguous", ENOUGH),
        ("known", 2 * ENOUGH),
    ]


@pytest.mark.parametrize(
    ("episodes", "ended", "again"),
    [
        (100, 189, False),
        (100, 190, True),  # of 200 starts some have no outcome
        (97, 191, True),
        (230, 379, False),
        (230, 380, True),  # no more than 400 are looked at, and some of them never end
        (380, 400, False),
    ],
)
def test_how_many_episodes_ask_again(
    episodes: int, ended: int, again: bool, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20)
    adaptation = Adaptation(served.release, "policy", lambda workspace, approve: None)
    alarm = adaptation.alarm()
    assert alarm is not None
    monkeypatch.setattr(Adaptation, "_taken", lambda *given: [row(1, True)] * ended)
    unclear = replace(alarm, diagnosis={"found": "ambiguous", "episodes": episodes})
    assert adaptation._unclear(unclear) == again


LIKE = Likeness("w", "World", "normal", 1.0, 0.5, 0.1, None, True)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([LIKE, replace(LIKE, mode="flipped")], "unchanged"),
        ([replace(LIKE, fits=False), replace(LIKE, mode="flipped")], "known"),
        ([replace(LIKE, mode="a"), replace(LIKE, mode="b")], "ambiguous"),
        ([replace(LIKE, mode="a"), replace(LIKE, env_fingerprint="v", mode="b")], "known"),
        ([replace(LIKE, fits=False)], "none"),
    ],
)
def test_what_comparisons_amount_to(evidence: list[Likeness], expected: str) -> None:
    found = conclude(evidence, ("w", "normal"), 40, 9.0)
    assert found.found == expected
    assert (found.mode is None) == (expected in ("ambiguous", "none"))


def test_observations_tell_apart_what_returns_do_not(served: Served) -> None:
    """A stronger motor that changes no return: only what is seen on the way differs."""
    served.first(bias=0.3)
    champion = served.ledger.champion()
    assert champion is not None
    candidate, rules = served.release.store.load(champion.digest), TrialRules()
    draws = np.random.default_rng(0)
    own = play(candidate, served.world, "normal", 100, 1, observe=True)
    moved = play(
        candidate, served.world, "normal", 60, 2, observe=True, perturbation=parse("force:3")
    )
    again = play(candidate, served.world, "normal", 60, 3, observe=True)
    policy = candidate.policy()
    found, same = (compare_samples(each, own, rules, draws, policy) for each in (moved, again))
    assert found.p > ALPHA
    assert (found.fits, same.fits) == (False, True)
    assert found.p_observed is not None
    assert found.p_observed <= ALPHA / 2


def test_how_a_world_moves_tells_apart_where_the_champion_fails_alike(served: Served) -> None:
    """Flipped, it falls in nine steps, whatever gravity does in so short a time."""
    served.first(bias=0.3)
    champion = served.ledger.champion()
    assert champion is not None
    candidate, rules = served.release.store.load(champion.digest), TrialRules()
    policy, draws = candidate.policy(), np.random.default_rng(0)
    own = play(candidate, served.world, "flipped", 200, 1, observe=True)
    moved = play(
        candidate, served.world, "flipped", 120, 2, observe=True, perturbation=parse("gravity:2.8")
    )
    again = play(candidate, served.world, "flipped", 120, 3, observe=True)
    found, same = (compare_samples(each, own, rules, draws, policy) for each in (moved, again))
    assert (found.fits, same.fits) == (False, True)
    assert own.observed is not None
    assert moved.observed is not None
    size = 1 + policy.observation_size  # neither returns nor observations alone show it
    alone = compare(moved.observed[:, :size], own.observed[:, :size], draws)
    assert min(found.p, alone.p) > ALPHA


def test_observations_of_service_are_compared_where_they_are_kept(served: Served) -> None:
    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20)
    served.meet("flipped", ENOUGH)
    champion = served.ledger.champion()
    assert champion is not None
    rows = served.ledger.started("policy", champion.version, 200)
    assert seen(served.release, champion, rows).observed is None
    kept = [
        Sample(champion.version, 1, name, step_of(name), 0.0, np.zeros(4, "<f4").tobytes())
        for name in [row.episode for row in rows][:OBSERVED]
    ]
    keep(served.ledger.database(), "policy", kept, 1000)
    service = seen(served.release, champion, rows)
    assert service.observed is not None
    assert service.observed.shape == (OBSERVED, 9)
    found = diagnose(served.release, champion, rows, "seeded")
    assert found.found == "none"  # nobody ever sees zeros
    assert {each.p_observed for each in found.evidence} == {None, 0.001}


def test_service_is_exported_as_parquet(served: Served, srghn_here: Srghn, tmp_path: Path) -> None:
    served.first(bias=0.3)
    served.meet("flipped", 3)
    observation = np.arange(4, dtype="<f4")
    at = step_of("met-2-1")
    seen = [Sample(1, 1, "met-2-1", at + n, 0.0, (observation + n).tobytes()) for n in range(2)]
    keep(served.ledger.database(), "policy", seen, 10)
    file = tmp_path / "service.parquet"
    place = {"SRGHN_HOME": str(served.settings.home)}
    done = srghn_here("watch", "export", "--out", str(file), "--json", env=place)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(file).to_pylist()
    assert [row["episode"] for row in rows] == ["met-2-0", "met-2-1", "met-2-2"]
    assert [row["observation"] for row in rows] == [None, [0.0, 1.0, 2.0, 3.0], None]
    assert [row["next_observation"] for row in rows] == [None, [1.0, 2.0, 3.0, 4.0], None]
    assert {row["return"] == row["length"] for row in rows} == {True}
    with pytest.raises(ConfigError, match="its name must be UTF-8"):
        export(served.ledger, "policy", tmp_path / "\udcfcber.parquet")
