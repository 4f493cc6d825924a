"""After a diagnosis: ask, recall, or evolve; once, within its budget, and never on a guess."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from pipelines.adapt import steps
from pipelines.adapt.beat import beat
from pipelines.adapt.diagnose import ENOUGH
from pipelines.adapt.former import best_former
from pipelines.adapt.request import gate_rules
from pipelines.adapt.steps import Adaptation
from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.versions.recall import former_champions
from serving import runs
from serving.control.adapted import ADAPT, latest_step
from serving.registry.rules import AdaptTerms
from serving.registry.sinks import NOTABLE
from srghn.config import GateParams, RunParams
from srghn.errors import (
    ConfigError,
    FingerprintMismatch,
    SrghnError,
    StaleGeneration,
    TransitionRefused,
)
from tests.conftest import Srghn
from tests.pipelines.adapt.conftest import ANN, Served


class Launched:
    """Stands for the workers: keeps what it was handed."""

    def __init__(self) -> None:
        self.runs: list[tuple[Workspace, str]] = []

    def __call__(self, workspace: Workspace, approve: str) -> None:
        self.runs.append((workspace, approve))


def alarmed(served: Served, mode: str = "flipped", **adapt: Any) -> tuple[Adaptation, Launched]:
    """The watch alarms, and the mode was diagnosed."""
    served.rules(**adapt)
    served.meet(mode, 20)
    served.meet(mode, ENOUGH)
    launched = Launched()
    adaptation = Adaptation(served.release, "policy", launched)
    assert str(adaptation.step()).startswith("diagnosis: ")
    return adaptation, launched


def said(served: Served) -> list[dict[str, Any]]:
    events = served.ledger.notes("policy", "adapt")
    return [served.ledger.evidence(str(event.evidence_sha256)) for event in events]


def test_by_default_the_command_is_offered_once(served: Served) -> None:
    served.first(bias=0.3)
    adaptation, launched = alarmed(served)
    assert adaptation.step() == "to adapt: srghn adapt --policy policy"
    assert adaptation.step() is None
    assert [each["step"] for each in said(served)] == ["asked"]
    assert launched.runs == []


def test_off_is_off(served: Served) -> None:
    served.first(bias=0.3)
    served.rules(act="off")
    served.meet("flipped", 60)
    served.meet("flipped", ENOUGH)
    assert Adaptation(served.release, "policy", Launched()).step() is None
    assert served.ledger.notes("policy", "diagnosis") == []


def test_without_a_former_champion_it_evolves_in_the_diagnosed_mode(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run", approve="auto", evaluations=5280)
    assert "evolves" in str(adaptation.step())
    [(workspace, approve)] = launched.runs
    evolution, drift = workspace.params().evolution, adaptation.alarm()
    assert drift is not None
    assert workspace.name == f"adapt-{drift.event.hash[:12]}"
    assert (evolution.mode, evolution.evaluations, approve) == ("flipped", 5280, "auto")
    assert evolution.until == pytest.approx(450)  # 90% of 500, what the verdict promised
    assert evolution.ancestor == served.ledger.champion().digest  # type: ignore[union-attr]
    # until its trace is there it is handed over again, which makes no second run of it
    assert adaptation.step() is None
    assert [workspace.name for workspace, _ in launched.runs] == [workspace.name] * 2
    runs.write(served.settings.home, trace := runs.begun(workspace.name))
    assert adaptation.step() is None  # it is at work
    runs.write(served.settings.home, runs.ended(trace, "failed", "no candidate"))
    assert "is failed" in str(adaptation.step())
    assert adaptation.step() is None
    assert [each["step"] for each in said(served)] == ["run", "over"]
    assert served.ledger.verify()


def test_its_candidate_is_judged_by_the_rules_by_which_the_champion_passed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate's manifest has none; CartPole's own were taken, whatever the environment."""
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    returns = {"return_low": 0.0, "return_high": 500.0, "failure_return": 90.0}
    served.steps.gate = {**returns, "min_return": 333.0, "attempts": 2}
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run")
    adaptation.step()
    [(workspace, _)] = launched.runs
    gate, canary = workspace.params().gate, workspace.params().canary
    assert (gate.min_return, gate.attempts, gate.failure_return) == (333.0, 2, 90.0)
    assert (gate.return_low, gate.return_high, canary.return_high) == (None, None, None)


def test_without_its_report_the_rules_are_those_of_its_run(served: Served) -> None:
    number = served.first(bias=0.3)
    report = served.release.report_page(number)
    assert report is not None
    (report.parent / "report.json").unlink()
    found = served.ledger.version(number)
    with pytest.raises(TransitionRefused, match="gate rules of version 1 are gone"):
        gate_rules(served.release, found)
    own = RunParams().model_copy(update={"gate": GateParams(min_return=321.0)})
    create_workspace(served.settings, found.run_id, own)
    assert gate_rules(served.release, found).min_return == 321.0


def test_a_run_that_may_not_begin_is_an_event_that_is_shown(
    served: Served, srghn_here: Srghn
) -> None:
    served.steps.gate = {"min_return": 700.0}
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run")
    line = str(adaptation.step())
    assert "no run can begin: gate.min_return: 700 lies outside" in line
    assert "then go on with: srghn adapt" in line
    assert adaptation.step() is None  # told once, and not tried again every few seconds
    asked = Adaptation(served.release, "policy", launched, asked=True)
    with pytest.raises(ConfigError, match="700 lies outside"):
        asked.step()
    [event] = served.ledger.notes("policy", "adapt")
    assert (event.action in NOTABLE, event.reason, launched.runs) == (True, line, [])
    shown = srghn_here("status", env={"SRGHN_HOME": str(served.settings.home)}).stdout
    assert f"adapted   {line}" in shown
    assert latest_step(served.ledger, "policy") == line
    served.second(flip=True, bias=0.1)
    assert latest_step(served.ledger, "policy") is None


def evolving(served: Served, monkeypatch: pytest.MonkeyPatch) -> tuple[Adaptation, Any, Any]:
    """The loop after an alarm that began a run; what it launched, and the run's workspace."""
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run")
    adaptation.step()
    [(workspace, _)] = launched.runs
    return adaptation, launched, workspace


def test_a_run_that_a_person_stopped_goes_on_when_a_person_asks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptation, launched, workspace = evolving(served, monkeypatch)
    home, trace = served.settings.home, runs.begun(workspace.name)
    runs.write(home, runs.ended(trace, "cancelled", "stopped"))
    assert adaptation.step() is None  # it stays stopped, and the alarm open
    assert len(launched.runs) == 1
    served.rules(evaluations=77)  # the budget of the next run, not of this one
    asked = Adaptation(served.release, "policy", launched, asked=True)
    assert f"run {workspace.name} evolves" in str(asked.step())
    runs.write(home, replace(trace, process="0:0"))  # killed, which leaves no last word
    assert f"run {workspace.name} evolves" in str(asked.step())
    assert [each.name for each, _ in launched.runs] == [workspace.name] * 3
    assert [each["step"] for each in said(served)] == ["run"]
    runs.write(home, runs.ended(trace, "finished", "done"))
    assert "is finished" in str(asked.step())
    assert asked.step() is None


def test_an_evaluation_of_its_own_run_that_was_cut_off_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptation, _, workspace = evolving(served, monkeypatch)
    number = served.register(bias=0.1, run_id=workspace.name)
    served.steps.begin(number)
    alarm = adaptation.alarm()
    assert alarm is not None
    assert adaptation.pending(alarm) is None
    served.steps.judge(number)
    assert adaptation.pending(alarm) == f"version {number} is not decided yet"


def test_a_run_ends_at_the_promise_of_the_gate_whatever_the_margin_is_now(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run")
    rules = served.ledger.deployment_rules()
    wider = rules.watch.model_copy(update={"margin": rules.watch.margin + 0.05})
    served.ledger.set_deployment_rules(rules.model_copy(update={"watch": wider}), who=ANN)
    adaptation.step()
    [(workspace, _)] = launched.runs
    assert workspace.params().evolution.until == pytest.approx(450)


def test_the_budget_holds(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run", runs_a_day=0)
    assert "0 may; it waits" in str(adaptation.step())
    assert adaptation.step() is None
    assert launched.runs == []


def test_a_clock_that_was_far_ahead_uses_up_no_budget(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the clock came there again, no run began after any alarm."""
    adaptation, terms = Adaptation(served.release, "policy", Launched()), AdaptTerms()
    with monkeypatch.context() as ahead:
        ahead.setattr(served.ledger, "_clock", lambda: time.time() + 400 * 86_400.0)
        for _ in range(terms.runs_a_day):
            served.ledger.note(ADAPT, {"step": "run"}, who=ANN)
    assert adaptation._over_budget(terms) is None
    served.ledger.note(ADAPT, {"step": "run"}, who=ANN)
    assert "must pass" in str(adaptation._over_budget(terms))


@pytest.mark.parametrize("what", ["run", "pass"])
def test_nothing_is_begun_while_something_is_pending(served: Served, what: str) -> None:
    served.first(bias=0.3)
    adaptation, launched = alarmed(served, act="run")
    if what == "run":
        runs.write(served.settings.home, runs.begun("nightly-7"))
    else:
        served.pass_(served.register(bias=0.1))
    assert adaptation.step() is None
    assert launched.runs == []
    asked = Adaptation(served.release, "policy", launched, asked=True)
    alarm = asked.alarm()
    assert alarm is not None
    assert asked.pending(alarm) is not None


def recalls(served: Served, monkeypatch: pytest.MonkeyPatch, passes: bool) -> list[int]:
    """The gate replaced by a verdict: what recalls come to it."""
    found: list[int] = []

    def recall(release: Any, version: int, world: Any, mode: str, who: Any) -> int:
        fingerprint = world.fingerprint
        return int(served.ledger.recall(version, env_fingerprint=fingerprint, mode=mode, who=who))

    def judge(release: Any, number: int, approve: str) -> Any:
        found.append(number)
        served.steps.begin(number)
        served.steps.judge(number, "passed" if passes else "failed", promise=0.9)
        from srghn.inference.verdict import Verdict

        return Verdict.from_dict(
            {**served.steps.verdict(number, "passed" if passes else "failed"), "checks": []}
        )

    monkeypatch.setattr(steps, "recall", recall)
    monkeypatch.setattr(steps, "judge", judge)
    return found


def in_the_flipped_mode(served: Served) -> int:
    """The champion is good there alone; returns the former one, good in the normal mode."""
    first = served.first(bias=0.3)
    served.second(flip=True, bias=0.1)
    served.ledger.set_mode("policy", "flipped", who=ANN)
    return first


def test_a_former_champion_that_is_good_there_is_recalled_first(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its world returned: no run is begun."""
    first = in_the_flipped_mode(served)
    found = recalls(served, monkeypatch, passes=True)
    adaptation, launched = alarmed(served, mode="normal", act="run")
    assert "recall of 1" in str(adaptation.step())
    [number] = found
    recalled = served.ledger.version(number)
    assert (recalled.recall_of, recalled.mode, recalled.state) == (first, "normal", "PASSED")
    assert [each["step"] for each in said(served)] == ["recall", "recalled", "over"]
    assert adaptation.step() is None
    assert launched.runs == []


def test_a_recall_that_fails_leads_to_a_run(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    in_the_flipped_mode(served)
    recalls(served, monkeypatch, passes=False)
    adaptation, launched = alarmed(served, mode="normal", act="run")
    adaptation.step()
    adaptation.step()
    [(workspace, _)] = launched.runs
    # not on the one that failed: its own genome would end the run at once, and be refused
    assert workspace.params().evolution.companions == ()
    assert [each["step"] for each in said(served)] == ["recall", "recalled", "run"]


def test_a_former_champion_that_is_bad_there_is_not_tried(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    served.first(bias=0.3)
    served.second(bias=0.1)
    found = recalls(served, monkeypatch, passes=True)
    adaptation, launched = alarmed(served, act="run")
    adaptation.step()
    assert found == []
    assert len(launched.runs) == 1


def test_a_former_champion_with_other_sensors_is_passed_over(served: Served) -> None:
    """Its successor's world has five numbers where it knows four."""
    served.first(bias=0.3)
    served.second(flip=True, bias=0.1)
    champion = served.ledger.champion()
    assert champion is not None
    assert best_former(served.release, champion, served.world, "normal", 0.5) is not None
    more = replace(served.world.interface, observation_size=5)
    wider = replace(served.world, interface=more)
    assert best_former(served.release, champion, wider, "normal", 0.5) is None


def test_a_beat_steps_each_policy_that_alarms(served: Served) -> None:
    served.first(bias=0.3)
    served.ledger.add_policy("other", who=ANN)
    launched = Launched()
    assert beat(served.settings, launched) == []
    served.rules()
    served.meet("flipped", 20)
    served.meet("flipped", ENOUGH)
    [line] = beat(served.settings, launched)
    assert line.startswith("policy policy: diagnosis: ")


def test_a_recall_that_is_refused_leads_to_a_run(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that made the former champion is not here any more, and its tables with it."""
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    in_the_flipped_mode(served)
    adaptation, launched = alarmed(served, mode="normal", act="run")
    assert "the workspace of its run run is not here" in str(adaptation.step())
    assert "evolves" in str(adaptation.step())
    [(workspace, _)] = launched.runs
    assert len(workspace.params().evolution.companions) == 1  # founded on both


def test_a_recall_that_may_not_be_judged_leads_to_a_run(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attempts are used up."""
    monkeypatch.setattr("pipelines.runs.prepare.find_founder", lambda *given: None)
    in_the_flipped_mode(served)
    recalls(served, monkeypatch, passes=True)

    def refused(*_: object) -> None:
        raise TransitionRefused("version 3 was evaluated 3 times, 3 are allowed")

    monkeypatch.setattr("pipelines.adapt.steps.judge", refused)
    adaptation, launched = alarmed(served, mode="normal", act="run")
    assert "3 are allowed" in str(adaptation.step())
    assert "evolves" in str(adaptation.step())
    assert len(launched.runs) == 1


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_recall_that_was_judged_and_then_refused_is_not_given_up(
    served: Served, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    """A person must approve what passed; what was cut off is judged at the next look."""
    in_the_flipped_mode(served)
    recalls(served, monkeypatch, passes=True)
    real = steps.judge

    def refused(release: Any, number: int, approve: str) -> Any:
        if cut_off:
            served.steps.begin(number)
            served.steps.judge(number, "error")
        else:
            passed.append(real(release, number, approve))
        raise TransitionRefused("a person must approve it, or judge it again")

    passed: list[Any] = []
    monkeypatch.setattr(steps, "judge", refused)
    monkeypatch.setattr(steps, "recorded", lambda *_: passed[-1] if passed else None)
    adaptation, launched = alarmed(served, mode="normal", act="run")
    if cut_off:
        with pytest.raises(StaleGeneration, match="judge it again"):
            adaptation.step()
        assert "recalled" not in [each["step"] for each in said(served)]
        monkeypatch.setattr(steps, "judge", real)
    assert "recall of 1" in str(adaptation.step())
    assert [each["step"] for each in said(served)][-2:] == ["recalled", "over"]
    assert launched.runs == []


def test_a_genome_that_was_rolled_back_founds_nothing(served: Served) -> None:
    """Its first version is a retired champion; what was rolled back has the same genome."""
    first = served.first(bias=0.3)
    second = served.second(flip=True, bias=0.1)
    assert [found.version for found in former_champions(served.release, "policy")] == [first]
    again = served.ledger.recall(
        first, env_fingerprint=served.world.fingerprint, mode="normal", who=ANN
    )
    served.pass_(again)
    served.steps.play(served.steps.canary(again), 10.0, 490.0, 12)
    served.ledger.promote(again, expected_generation=2, who=ANN)
    served.ledger.rollback(who=ANN, to_version=second)
    assert served.ledger.version(first).quarantined is False
    assert former_champions(served.release, "policy") == []


def test_what_fails_is_raised_for_whoever_beats(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*given: Any) -> None:
        raise FingerprintMismatch("the world is no longer as pinned")

    served.first(bias=0.3)
    served.rules()
    served.meet("flipped", 20)
    served.meet("flipped", ENOUGH)
    monkeypatch.setattr(Adaptation, "step", moved)
    with pytest.raises(SrghnError, match="policy policy: the world is no longer as pinned"):
        beat(served.settings, Launched())


def test_a_full_disk_in_one_policy_stops_no_other(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def step(adaptation: Adaptation) -> str:
        looked.append(adaptation.policy)
        if adaptation.policy == "arm":
            raise OSError(28, "No space left on device")
        return "evolves"

    monkeypatch.setattr(Adaptation, "step", step)
    monkeypatch.setattr("pipelines.adapt.beat._alarmed", lambda release: ["arm", "policy"])
    assert beat(served.settings, Launched()) == ["policy policy: evolves"]
    assert looked == ["arm", "policy"]


def test_a_promotion_or_a_recovery_ends_it(served: Served) -> None:
    served.first(bias=0.3)
    adaptation, _ = alarmed(served)
    served.second(flip=True, bias=0.1)
    assert adaptation.alarm() is None


def test_commands_say_what_there_is(served: Served, srghn_here: Srghn) -> None:
    place = {"SRGHN_HOME": str(served.settings.home)}
    nothing = srghn_here("adapt", env=place)
    assert (nothing.returncode, "has no champion yet" in nothing.stderr) == (1, True)
    served.first(bias=0.3)
    refused = srghn_here("diagnose", env=place)
    assert (refused.returncode, "does not alarm" in refused.stderr) == (1, True)
    served.rules()
    served.meet("flipped", 20)
    early = srghn_here("diagnose", env=place)
    assert (early.returncode, "too few episodes" in early.stderr) == (1, True)
    assert "0 of 0 episodes that began after the alarm have an outcome" in early.stderr
    waits = srghn_here("adapt", env=place)
    assert "nothing to do: 0 of 0 episodes that began" in waits.stdout
    assert "takes the first 100 once each is over, and 95 of them need one" in waits.stdout
    served.meet("flipped", ENOUGH)
    done = srghn_here("diagnose", "--json", env=place)
    assert done.returncode == 0, done.stderr
    assert '"mode": "flipped"' in done.stdout
    assert served.ledger.service_mode() == "flipped"
    told = srghn_here("diagnose", env=place).stdout
    assert (told[:6], told.splitlines()[-1]) == ("known:", "next: srghn adapt")
    done = srghn_here("watch", "set", "--adapt", "run", "--reason", "unattended", env=place)
    assert "adapt run" in done.stdout
    assert served.ledger.deployment_rules().adapt.act == "run"


def test_an_unknown_alarm_is_refused(served: Served) -> None:
    served.first(bias=0.3)
    with pytest.raises(TransitionRefused, match="does not alarm"):
        steps.require_alarm(Adaptation(served.release, "policy", Launched()))
