"""Whole judgements by the real gate: who passes, who does not and why, and the same bytes again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from safetensors.numpy import save

from regression_suite import identity
from regression_suite.again import play_recorded
from regression_suite.gate import gate_root, judge
from regression_suite.suite import policy_digest, suite_version
from srghn.candidates.candidate import Candidate
from srghn.config import EnvParams, GateParams, Returns
from srghn.envs import EnvVersion, pin
from srghn.envs.registry import load_object
from srghn.errors import GateError
from srghn.evolution.ancestry import Ancestry
from srghn.files import sha256_file
from srghn.inference.verdict import Verdict
from tests.regression_suite.conftest import BALANCE, QUICK, Make, make_candidate, run_in, seal

PARAMS = QUICK
WEAK = (0.0, 0.0, 0.3, 1.0)
#: Balances for 500 steps from the starts it was selected on; on fresh ones it often drifts away.
OVERFITTED = (0.0, -0.2, 1.0, 0.3)
Judge = Callable[..., Verdict]


@pytest.fixture
def rule(tmp_path: Path, version: EnvVersion, run_dir: Path) -> Judge:
    def decide(
        candidate: Candidate | Path,
        incumbent: Candidate | None = None,
        params: GateParams = PARAMS,
        mode: str = "normal",
        **options: object,
    ) -> Verdict:
        folder = candidate if isinstance(candidate, Path) else candidate.path
        given = {"run_dir": run_dir, **options}
        champion = None if incumbent is None else incumbent.path
        return judge(  # type: ignore[arg-type]
            folder, version, mode, params, tmp_path / "out", incumbent_dir=champion, **given
        )

    return decide


def test_a_first_champion_must_reach_the_bar(make: Make, rule: Judge) -> None:
    verdict = rule(make("good"))
    assert verdict.passed, verdict.summary
    assert verdict.incumbent_digest is None
    assert {c.outcome for c in verdict.checks if c.binding} == {"passed"}


def test_a_better_candidate_replaces_the_champion(make: Make, rule: Judge) -> None:
    verdict = rule(make("good"), make("weak", WEAK))
    assert verdict.passed, verdict.summary
    primary = next(c for c in verdict.checks if c.name == "primary")
    assert primary.low is not None
    assert primary.low > PARAMS.min_gain * 500


def test_no_better_at_the_ceiling_is_a_fail_with_that_reason(make: Make, rule: Judge) -> None:
    verdict = rule(make("good"), make("also good", (0.0, 0.0, 1.0, 0.05)))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "primary")
    assert "ceiling of 500" in verdict.summary


def test_a_champion_in_another_mode_is_played_there_again(make: Make, rule: Judge) -> None:
    """In the flipped world the champion of the normal one falls, and its mirror image balances."""
    mirror = tuple(-gain for gain in BALANCE)
    verdict = rule(make("mirror", mirror), make("champion"), mode="flipped")
    assert verdict.passed, verdict.summary
    assert verdict.mode == "flipped"


# ------------------------------------------------------------------------ known-bad candidates


def test_a_constant_action_is_refused_as_such(make: Make, rule: Judge) -> None:
    verdict = rule(make("constant", (0.0, 0.0, 0.0, 0.0), bias=1.0))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "behaviour")
    assert "one action for all" in verdict.summary


def test_random_weights_are_refused_for_their_return(make: Make, rule: Judge) -> None:
    verdict = rule(make("random", (0.31, -0.95, 0.02, -0.4), bias=0.1))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "primary")
    assert "below the required 450" in verdict.summary


def test_nan_weights_are_refused_before_they_play(make: Make, rule: Judge, tmp_path: Path) -> None:
    verdict = rule(make("nan", (float("nan"), 0.0, 1.0, 1.0)))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "finite weights")
    assert "policy.onnx" in verdict.summary
    assert not (tmp_path / "out" / "episodes.parquet").exists()


def test_a_nan_genome_is_refused(make: Make, rule: Judge) -> None:
    verdict = rule(make("nan genome", genome=float("nan")))
    assert verdict.bound_by == "finite weights"
    assert "genome.safetensors" in verdict.summary


@pytest.mark.parametrize("other", [{"more": "data"}, None])
def test_a_genome_in_another_writing_is_no_new_genome(
    make: Make, rule: Judge, version: EnvVersion, other: dict[str, str] | None
) -> None:
    """The same numbers with another digest would have attempts of their own."""
    candidate = make("rewritten")
    genome = candidate.load_genome()
    values = genome if other else genome.astype(np.float64)
    (candidate.path / "genome.safetensors").write_bytes(save({"genome": values}, other))
    seal(candidate.path, version, {})
    verdict = rule(candidate)
    assert (verdict.verdict, verdict.bound_by) == ("failed", "integrity")
    assert "is not written as srghn writes a genome" in verdict.summary


@pytest.mark.parametrize(
    "name",
    ["policy.onnx", "genome.safetensors", "golden.json", "ancestry.json", "env_version.json"],
)
def test_one_flipped_bit_is_refused(make: Make, rule: Judge, name: str) -> None:
    path = make("tampered").path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verdict = rule(path.parent)
    assert (verdict.verdict, verdict.bound_by) == ("failed", "integrity")
    assert name in verdict.summary


def test_another_world_is_refused_and_both_are_named(
    make: Make, rule: Judge, version: EnvVersion
) -> None:
    folder = make("alien").path
    other = pin(EnvParams(id="CartPole-v1"))
    (folder / "env_version.json").write_text(other.to_json())
    seal(folder, other, {})
    verdict = rule(folder)
    assert (verdict.verdict, verdict.bound_by) == ("failed", "environment")
    assert other.fingerprint[:16] in verdict.summary
    assert version.fingerprint[:16] in verdict.summary
    assert "srghn env pin" in verdict.checks[-1].remedy


def test_a_manifest_that_names_another_world_than_its_files_is_refused(
    make: Make, rule: Judge
) -> None:
    verdict = rule(make("two-faced", manifest={"env_fingerprint": "f" * 64}))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "integrity")
    assert "ffffffffffffffff" in verdict.summary


def test_a_world_that_no_longer_behaves_as_pinned_is_an_error(
    make: Make, rule: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patched constant: neither candidate nor champion can be judged in it."""
    make_world = CartPoleEnv.__init__

    def heavier(self: CartPoleEnv, *args: object, **kwargs: object) -> None:
        make_world(self, *args, **kwargs)  # type: ignore[arg-type]
        self.gravity = 9.9

    candidate = make("good")
    monkeypatch.setattr(CartPoleEnv, "__init__", heavier)
    verdict = rule(candidate)
    assert (verdict.verdict, verdict.bound_by) == ("error", "world")
    assert "first differing step" in verdict.summary


def test_golden_outputs_that_say_nothing_are_refused(
    make: Make, rule: Judge, version: EnvVersion
) -> None:
    folder = make("silent").path
    for text in ('{"observations":[],"actions":[]}', '{"observations":3}'):
        (folder / "golden.json").write_text(text)
        seal(folder, version, {})
        assert rule(folder).bound_by == "serving artefact"


def test_an_overfitted_past_champion_is_refused_on_fresh_seeds(make: Make, rule: Judge) -> None:
    verdict = rule(make("overfitted", OVERFITTED))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "primary")


def test_a_policy_that_is_not_the_evolved_one_is_refused(
    make: Make, rule: Judge, version: EnvVersion
) -> None:
    folder = make("swapped").path
    other = make("other", WEAK).path
    (folder / "policy.onnx").write_bytes((other / "policy.onnx").read_bytes())
    seal(folder, version, {})  # digests match again, answers do not
    assert rule(folder).bound_by == "serving artefact"


def test_a_genome_that_is_not_its_lineage_s_is_refused(
    make: Make, rule: Judge, version: EnvVersion
) -> None:
    folder = make("changeling").path
    other = make("other", (0.0, 0.4, 1.0, 0.9)).path
    for name in ("genome.safetensors", "policy.onnx", "golden.json"):
        (folder / name).write_bytes((other / name).read_bytes())
    seal(folder, version, {})
    assert rule(folder).bound_by == "lineage"


def test_no_run_tables_never_pass(make: Make, rule: Judge, tmp_path: Path) -> None:
    candidate = make("good")
    assert rule(candidate, run_dir=None).bound_by == "data quality"
    assert rule(candidate, run_dir=tmp_path / "nowhere").bound_by == "data quality"


def test_tables_that_lack_a_column_fail_and_are_not_drawn(
    make: Make, rule: Judge, run_dir: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run_dir, damaged)
    for part in (damaged / "lineage").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(["fitness"]), part)
    assert rule(make("good"), run_dir=damaged).bound_by == "data quality"
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["considered"] is None


def test_budgets_are_kept(make: Make, rule: Judge) -> None:
    heavy = PARAMS.model_copy(update={"max_policy_bytes": 100})
    assert rule(make("heavy"), params=heavy).bound_by == "size"
    slow = PARAMS.model_copy(update={"max_latency_ms": 1e-9})
    assert rule(make("slow"), params=slow).bound_by == "latency"


# ----------------------------------------------------------------------- the champion, the rules


def test_a_broken_champion_is_an_error_and_never_a_pass(make: Make, rule: Judge) -> None:
    champion = make("champion", WEAK)
    (champion.path / "policy.onnx").write_bytes(b"torn")
    verdict = rule(make("good"), champion)
    assert (verdict.verdict, verdict.bound_by) == ("error", "incumbent")


def test_the_champion_must_be_the_one_the_policy_names(make: Make, rule: Judge) -> None:
    named = {"incumbent_digest": "e" * 64}
    verdict = rule(make("good"), make("weak", WEAK), **named)
    assert (verdict.verdict, verdict.bound_by) == ("error", "incumbent")
    with pytest.raises(GateError, match="the lease names champion"):
        rule(make("alone"), **named)


@pytest.mark.parametrize("attempt", [0, 4])
def test_attempts_are_bounded(make: Make, rule: Judge, attempt: int) -> None:
    with pytest.raises(GateError, match="3 times"):
        rule(make("again"), attempt=attempt)


def test_an_inconclusive_cell_never_passes(make: Make, rule: Judge) -> None:
    """Better where it counts, but too little is known of a harder world."""
    few = {"cell_episodes": 20, "cell_failure_margin": 0.01}
    verdict = rule(make("good"), make("weak", WEAK), params=PARAMS.model_copy(update=few))
    assert verdict.verdict == "inconclusive"
    assert verdict.bound_by == "force:1.2 failures"


def test_a_secondary_gain_may_carry_a_candidate_only_if_named(make: Make, rule: Judge) -> None:
    champion, candidate = make("champion", (0.068, 0.557, 0.318, 0.436)), make("good")
    plain = PARAMS.model_copy(update={"episodes": 200, "perturbations": ("pole_length:1.5",)})
    named = plain.model_copy(update={"secondary_gains": ("cells",)})
    assert "ceiling" in rule(candidate, champion, params=plain).summary
    verdict = rule(candidate, champion, params=named)
    assert verdict.passed, verdict.summary
    primary = next(c for c in verdict.checks if c.name == "primary")
    assert "passed by the secondary gain cells" in primary.reason


def test_the_rules_have_a_digest_without_the_champion() -> None:
    """Until 0.2 the champion's digest stood among them."""
    old = GateParams.model_validate({**PARAMS.model_dump(), "incumbent": "a" * 64})
    assert policy_digest(PARAMS) == policy_digest(old)
    assert policy_digest(PARAMS) != policy_digest(PARAMS.model_copy(update={"margin": 0.06}))


# ----------------------------------------------------------------------------------- the files


def test_the_same_inputs_give_the_same_bytes(make: Make, rule: Judge, tmp_path: Path) -> None:
    candidate, champion = make("good"), make("weak", WEAK)
    history = [
        {
            "seq": 1,
            "from_state": "REGISTERED",
            "to_state": "EVALUATING",
            "actor": "a",
            "reason": "r",
        }
    ]
    found = []
    for _ in range(2):
        verdict = rule(candidate, champion, history=history)
        out = tmp_path / "out"
        found.append([p.read_bytes() for p in sorted(out.iterdir()) if p.name != "timings.json"])
    assert found[0] == found[1]
    assert verdict.report_digest == sha256_file(tmp_path / "out" / "report.html")


def test_another_attempt_plays_other_episodes(make: Make, rule: Judge, tmp_path: Path) -> None:
    candidate, seeds = make("good"), []
    for attempt in (1, 2):
        rule(candidate, attempt=attempt)
        table = pq.read_table(tmp_path / "out" / "episodes.parquet")
        seeds.append(set(table["seed"].to_pylist()))
    assert len(seeds[0]) >= 150
    assert not seeds[0] & seeds[1]


def test_one_digest_stands_for_all_the_evidence(make: Make, rule: Judge, tmp_path: Path) -> None:
    rule(make("good"), make("weak", WEAK))
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_bytes())
    assert sha256_file(out / "report.json") in (out / "report.html").read_text()
    assert report["episodes_digest"] == sha256_file(out / "episodes.parquet")
    stored = Verdict.from_json((out / "verdict.json").read_bytes())
    files = ("report.html", "report.json", "episodes.parquet", "data_docs.html")
    assert stored.evidence == {name: sha256_file(out / name) for name in files}
    assert stored.report_digest == stored.evidence["report.html"]
    left = {"report_digest", "evidence"}
    assert {k: v for k, v in stored.to_dict().items() if k not in left} == report["verdict"]


def test_progress_is_told(make: Make, rule: Judge) -> None:
    told: list[tuple[int, int, str]] = []
    rule(make("good"), progress=lambda *step: told.append(step))
    assert [done for done, _, _ in told] == [100, 150, 200, 300]  # two cells are decided early
    assert told[-1][:2] == (300, 300)
    assert told[0][2] == "primary"


# ------------------------------------------------------- evidence that can't be talked round


def test_a_linear_policy_beside_a_genome_of_constants_is_refused(make: Make, rule: Judge) -> None:
    """Every digest is right, the policy is good, and nobody evolved it."""
    verdict = rule(make("impostor", genome=0.5))
    assert (verdict.verdict, verdict.bound_by) == ("failed", "policy of the genome")
    assert "actions differ from the genome's" in verdict.summary


def test_a_candidate_without_parameters_cannot_be_made_again(make: Make, rule: Judge) -> None:
    assert rule(make("mute", manifest={"params": None})).bound_by == "policy of the genome"


def test_a_lineage_whose_fitness_is_not_the_run_s_is_refused(
    make: Make, rule: Judge, version: EnvVersion
) -> None:
    folder = make("boaster").path
    ancestry = Ancestry.from_json((folder / "ancestry.json").read_text())
    last = replace(ancestry.chain[-1], fitness=500.0)
    boast = replace(ancestry, chain=(*ancestry.chain[:-1], last))
    (folder / "ancestry.json").write_text(boast.to_json())
    seal(folder, version, {})
    verdict = rule(folder)
    assert verdict.bound_by == "lineage"
    assert "the run's tables say" in verdict.summary


def test_the_lease_decides_the_seeds_and_the_digest_only_without_one(
    make: Make, rule: Judge, tmp_path: Path
) -> None:
    candidate, seeds = make("good"), {}
    for lease in ("a" * 64, "b" * 64, None):
        verdict = rule(candidate, lease=lease)
        assert verdict.lease == lease
        table = pq.read_table(tmp_path / "out" / "episodes.parquet")
        seeds[lease] = set(table["seed"].to_pylist())
    kinds = list(seeds.values())
    assert not kinds[0] & kinds[1]
    assert not kinds[0] & kinds[2]
    assert gate_root("s", "c", 1, "lease") == gate_root("s", "other", 2, "lease")


def test_the_served_mode_binds(make: Make, rule: Judge) -> None:
    """Better than the champion in the mode it was evolved in, worse in the one that is served."""
    mirror = tuple(-gain for gain in BALANCE)
    champion, candidate = make("mirror", mirror), make("good")
    verdict = rule(candidate, champion, mode="flipped")
    assert (verdict.verdict, verdict.bound_by) == ("failed", "primary")
    primary = next(c for c in verdict.checks if c.name == "primary")
    assert "evolved in mode normal, but it is judged in mode flipped" in primary.remedy
    elsewhere = next(c for c in verdict.checks if c.name == "mode normal")
    assert elsewhere.outcome == "passed"
    assert not elsewhere.binding


def test_five_hundred_against_a_hair_less_is_no_gain(make: Make, rule: Judge) -> None:
    champion = make("champion", (0.068, 0.557, 0.318, 0.436))
    endless = PARAMS.model_copy(update={"ceiling": None})
    verdict = rule(make("good"), champion, params=endless)
    assert verdict.verdict in ("failed", "inconclusive")
    assert verdict.bound_by == "primary"


def test_decided_cells_end_early_and_the_undecided_get_what_they_saved(
    make: Make, rule: Judge, tmp_path: Path
) -> None:
    """A limit of 4% takes 170 episodes; the cell was planned to have 60, the primary 400."""
    hard = {"cell_episodes": 60, "episodes": 400, "max_cell_failure_rate": 0.04}
    verdict = rule(make("good"), params=PARAMS.model_copy(update=hard))
    assert verdict.passed, verdict.summary
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    used = {cell["cell"]["name"]: (cell["used"], cell["planned"]) for cell in report["cells"]}
    assert used["primary"][0] < 400
    assert 60 < used["force:1.2"][0] < 400
    assert used["mode flipped"][1] == 60
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Episodes planned and used" in page


def test_a_suite_says_what_is_played_and_looked_at(
    make: Make, rule: Judge, tmp_path: Path, version: EnvVersion
) -> None:
    """A cell of failures alone, a cell in another mode, one that does nothing, and its digest."""
    suite = {
        "name": "mine",
        "version": 4,
        "cells": [
            {"perturbation": "force", "severities": [1.2], "metrics": ["failures"]},
            {"perturbation": "force", "severities": [1.1], "modes": ["flipped"], "binding": False},
            {"perturbation": "action_repeat", "severities": [1]},
        ],
    }
    rules = {**PARAMS.model_dump(), "perturbations": None, "suite": suite}
    params = GateParams.model_validate(rules)
    verdict = rule(make("good"), params=params)
    assert verdict.passed, verdict.summary
    names = {check.name: check.binding for check in verdict.checks}
    assert "force:1.2" not in names
    assert names["force:1.2 failures"]
    assert not names["force:1.1 in mode flipped"]
    assert verdict.suite_version == suite_version(params, version)
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert (report["suite"]["name"], report["suite"]["version"]) == ("mine", 4)
    assert report["left_out"] == [["action_repeat:1", "severity 1 changes nothing"]]
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"mine 4, {verdict.suite_version.removeprefix('3:')}" in page
    assert "action_repeat:1</strong> (severity 1 changes nothing)" in page
    recorded = pq.read_table(tmp_path / "out" / "episodes.parquet")
    seeds = recorded.filter(pc.equal(recorded["cell"], "force:1.1 in mode flipped"))
    again = play_recorded(
        [("force:1.1 in mode flipped", seeds["seed"].to_pylist())],
        [make("again").policy()],
        version,
        "normal",
    )
    assert again[0][0][0].tolist() == seeds["candidate_return"].to_pylist()


class Brittle(gym.Wrapper[Any, Any, Any, Any]):
    """Breaks where the cart leaves the middle of the track."""

    def step(self, action: Any) -> Any:
        found = self.env.step(action)
        if abs(found[0][0]) > 1.5:
            raise RuntimeError("the cart hit a bolt")
        return found


def test_episodes_that_crash_end_in_a_verdict_about_whoever_crashed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A champion's crash is its failure, a candidate's leaves it unjudged; the page shows both."""
    wrapped = EnvParams(id="CartPole-v1", wrappers=(f"{__name__}:Brittle",))
    version, run_dir = run_in(wrapped, tmp_path_factory)
    safe = make_candidate(tmp_path, version, run_dir, "safe")
    wild = make_candidate(tmp_path, version, run_dir, "wild", WEAK)
    rules = PARAMS.model_copy(update={"perturbations": ()})
    words, out = "then a crash: RuntimeError: the cart hit a bolt", tmp_path / "out"
    for mine, theirs, outcome in ((safe, wild, "passed"), (wild, safe, "error")):
        verdict = judge(
            mine.path, version, "normal", rules, out, incumbent_dir=theirs.path, run_dir=run_dir
        )
        assert verdict.verdict == outcome, verdict.summary
        assert words in (out / "report.html").read_text()
    assert "of the candidate's 50 episodes crashed" in verdict.summary


class Wearing(CartPoleEnv):
    """After a thousand resets of any of them the track gets shorter and shorter: it wears out."""

    resets = 0

    def reset(self, **options: Any) -> Any:
        type(self).resets += 1
        self.x_threshold = 2.4 / (1 + max(0, type(self).resets - 1000) / 100)
        return super().reset(**options)


@pytest.mark.services
def test_a_world_that_wears_out_is_an_error_and_makes_nobody_superior(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file against itself in a world that wears out with each reset."""
    monkeypatch.setattr(identity, "verify", lambda version: None)  # the wear is not in its pin
    world = EnvParams(
        id="tests.regression_suite.test_gate:Wearing",
        kwargs={"max_episode_steps": 500},
        returns=Returns(low=0, high=500),
        failure_return=100,
    )
    version, run_dir = run_in(world, tmp_path_factory)
    one = make_candidate(tmp_path, version, run_dir, "one", (0.0, 0.0, 0.3, 1.0))
    load_object(world.id, "environment").resets = 1000
    verdict = judge(
        one.path,
        version,
        "normal",
        PARAMS.model_copy(update={"perturbations": (), "ceiling": None}),
        tmp_path / "out",
        incumbent_dir=one.path,
        run_dir=run_dir,
    )
    assert (verdict.verdict, verdict.bound_by) == ("error", "same twice")
    assert "the environment is not reproducible" in verdict.summary
    primary = next(c for c in verdict.checks if c.name == "primary")
    assert primary.outcome != "passed"


@pytest.mark.services
def test_a_fresh_process_plays_the_same_bytes(make: Make, rule: Judge) -> None:
    verdict = rule(make("good"), make("weak", WEAK))
    same = next(c for c in verdict.checks if c.name == "same twice")
    assert same.outcome == "passed"
    assert same.n is not None
    assert same.n >= 20
