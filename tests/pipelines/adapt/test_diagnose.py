"""Which pinned world explains service; or none, and then nobody guesses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.adapt.diagnose import ENOUGH, Likeness, conclude, places, taken
from pipelines.adapt.steps import Adaptation
from serving.control.watch import Watch
from serving.registry.records import StartRow
from srghn.config import Switch
from srghn.envs import pin
from tests.pipelines.adapt.conftest import Served


def diagnosed(served: Served) -> Adaptation:
    adaptation = Adaptation(served.release, "policy", lambda workspace, approve: None)
    said = adaptation.step()
    assert said is not None
    assert said.startswith("diagnosis: ")
    return adaptation


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
    """A few bad episodes raised the alarm, and then all was well."""
    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20)
    served.meet("normal", ENOUGH)
    assert served.ledger.notes("policy", "drift_over") == []  # the watch takes longer to see it
    diagnosed(served)
    [event] = served.ledger.notes("policy", "diagnosis")
    assert served.ledger.evidence(str(event.evidence_sha256))["found"] == "unchanged"


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
    """Those that end early are not what service is like: the prefix must be nearly whole."""
    rows = [row(n, True) for n in range(ENOUGH)]
    assert taken(rows[:-1]) is None
    assert taken(rows) == rows
    late = [row(n, n % 4 != 0) for n in range(200)]  # 150 ended, and a quarter still run
    assert taken(late) is None
    assert taken([*rows, row(99, False), row(100, False), row(101, False)]) == rows


LIKE = Likeness("w", "World", "normal", 1.0, 0.5, 0.1, True)


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
