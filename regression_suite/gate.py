"""The gate: one candidate, one world, one verdict, and the evidence for it in a folder.

Gate seeds are a hash of (salt, candidate digest, attempt): they exist only once the candidate is
fixed, and no evolution run can have seen them. Candidate and incumbent play the same episodes, both
as they are served. The same inputs give the same bytes; clocks go to `timings.json` alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from regression_suite import behaviour, checks, estimates, tables
from regression_suite.descent import judge_lineage
from regression_suite.episodes import Played, Progress, gate_root, play, to_parquet
from regression_suite.evidence import Evidence
from regression_suite.expectations import judge_tables, validate
from regression_suite.identity import identify, policy_size, read_incumbent, say
from regression_suite.report import render
from regression_suite.report.film import Film, record
from regression_suite.suite import SUITE_VERSION, plan
from srghn.candidates.candidate import OnnxPolicy
from srghn.config import GateParams, NetworkParams
from srghn.envs import EnvVersion
from srghn.errors import ArtefactError, GateError
from srghn.evaluation.base import make_backend
from srghn.files import atomic_write, canonical_json, sha256_bytes
from srghn.inference.verdict import Check, Verdict, decide, summarise


def policy_digest(params: GateParams) -> str:
    """SHA-256 of the rules alone: whom they are applied against is not one of them."""
    return sha256_bytes(canonical_json(params.model_dump(mode="json", exclude={"incumbent"})))


def judge(
    candidate_dir: Path,
    version: EnvVersion,
    mode: str,
    params: GateParams,
    out_dir: Path,
    *,
    incumbent_dir: Path | None,
    run_dir: Path | None,
    attempt: int = 1,
    history: Sequence[Mapping[str, Any]] = (),
    progress: Progress | None = None,
) -> Verdict:
    """Judge a candidate against the incumbent, or as a first champion, and write the report.

    Writes `report.html`, `report.json`, `episodes.parquet`, `timings.json` and, last, so that it
    is there only if all of it is, `verdict.json` to `out_dir`. A candidate that cannot be read, or
    is not of this world, is judged too: failed, for that reason. `history` is the ledger's events
    about the candidate, each with `seq`, `from_state`, `to_state`, `actor` and `reason`.

    Raises `GateError` when the attempts are used up or the champion that the policy names was not
    given, `ConfigError` for a mode or a perturbation that the world does not have.
    """
    _check_request(params, attempt, incumbent_dir)
    started = time.perf_counter()
    (out_dir / "verdict.json").unlink(missing_ok=True)
    found = identify(candidate_dir, version, params)
    evidence = Evidence(
        version, mode, params, attempt, found.digest, found.candidate, found.checks, history=history
    )
    if found.sound and incumbent_dir is not None:
        check, incumbent = read_incumbent(incumbent_dir, version, params)
        evidence = replace(evidence, incumbent=incumbent, checks=(*evidence.checks, check))
    timings = {}
    if all(check.outcome == "passed" for check in evidence.checks):
        evidence, timings["latency_ms"] = _examine(evidence, run_dir, progress)
    verdict = _write(evidence, out_dir)
    timings["seconds"] = time.perf_counter() - started
    atomic_write(out_dir / "timings.json", json.dumps(timings, indent=1))
    atomic_write(out_dir / "verdict.json", verdict.to_json())
    return verdict


def _check_request(params: GateParams, attempt: int, incumbent_dir: Path | None) -> None:
    if not 1 <= attempt <= params.attempts:
        raise GateError(
            f"attempt {attempt} of a candidate that may be judged {params.attempts} times; "
            "evolve another candidate instead of asking again"
        )
    if params.incumbent is not None and incumbent_dir is None:
        raise GateError(
            f"gate.incumbent names champion {params.incumbent[:16]}…, but its folder was not given"
        )


def _examine(
    evidence: Evidence, run_dir: Path | None, progress: Progress | None
) -> tuple[Evidence, float | None]:
    """Play every cell, then judge returns, behaviour, latency and the run's tables."""
    assert evidence.candidate is not None
    policy = evidence.candidate.policy()
    theirs = None if evidence.incumbent is None else evidence.incumbent.policy()
    root = gate_root(evidence.params.salt, evidence.candidate, evidence.attempt)
    cells = plan(evidence.version, evidence.mode, evidence.params)
    with make_backend("gymnasium", evidence.version, NetworkParams()) as world:
        played, recorder = play(cells, policy, theirs, evidence.version, world, root, progress)
    evidence = replace(evidence, played=played, film=_film(evidence, policy, played[0]))
    seen = recorder.sample(behaviour.SAMPLE)
    observed, latency = None, None
    if len(seen):
        observed = behaviour.observe(evidence.version.interface, seen, policy, theirs)
        latency = behaviour.latency_ms(policy, seen[:1])
    evidence = replace(evidence, behaviour=observed)
    evidence = _add(evidence, *behaviour.judge_behaviour(observed))
    evidence = _judge_returns(evidence, root)
    evidence = _add(evidence, behaviour.judge_latency(latency, evidence.params))
    return _judge_run(evidence, run_dir), latency


def _judge_returns(evidence: Evidence, root: int) -> Evidence:
    params = evidence.params
    cells = tuple(estimates.estimate(played, params, root) for played in evidence.played)
    evidence = replace(evidence, cells=cells)
    if evidence.incumbent is None:
        return _add(evidence, *checks.first_champion(cells, params))
    assert evidence.candidate is not None
    pooled = estimates.pooled_gain(evidence.played, params, root)
    sizes = policy_size(evidence.candidate), policy_size(evidence.incumbent)
    gains = checks.secondary_gains(cells, params, pooled, sizes)
    return _add(evidence, *checks.against_champion(cells, params, gains), *gains)


def _judge_run(evidence: Evidence, run_dir: Path | None) -> Evidence:
    """The run's tables, and the candidate's place in them."""
    candidate = evidence.candidate
    assert candidate is not None
    run, quality, problem = None, None, ""
    if run_dir is not None:
        try:
            run = tables.read(run_dir)
            quality = validate(run)
        except ArtefactError as error:
            problem = say(error)
    evidence = replace(evidence, tables=run, quality=quality)
    sound = quality is not None and quality.success
    lineage = judge_lineage(candidate, run if sound else None)
    return _add(evidence, lineage, judge_tables(quality, problem))


def _film(evidence: Evidence, policy: OnnxPolicy, primary: Played) -> Film | None:
    """The candidate's worst nominal episode: the one a reviewer should see."""
    seed = int(primary.seeds[int(np.argmin(primary.returns))])
    return record(policy, evidence.version, evidence.mode, seed)


def _add(evidence: Evidence, *found: Check) -> Evidence:
    return replace(evidence, checks=(*evidence.checks, *found))


def _verdict(evidence: Evidence) -> Verdict:
    outcome, bound = decide(evidence.checks)
    return Verdict(
        verdict=outcome,
        checks=evidence.checks,
        bound_by=bound.name,
        summary=summarise(outcome, bound),
        candidate_digest=evidence.digest,
        env_fingerprint=evidence.version.fingerprint,
        mode=evidence.mode,
        suite_version=SUITE_VERSION,
        policy_digest=policy_digest(evidence.params),
        incumbent_digest=None if evidence.incumbent is None else evidence.incumbent.digest,
        attempt=evidence.attempt,
    )


def _write(evidence: Evidence, out_dir: Path) -> Verdict:
    """Write the evidence, each file naming the digest of the one before; give the verdict."""
    verdict = _verdict(evidence)
    episodes_digest = None
    if evidence.played:
        data = to_parquet(evidence.played)
        atomic_write(out_dir / "episodes.parquet", data)
        episodes_digest = sha256_bytes(data)
    content = canonical_json(evidence.to_dict(verdict, episodes_digest))
    atomic_write(out_dir / "report.json", content)
    page = render(evidence, verdict, sha256_bytes(content)).encode()
    atomic_write(out_dir / "report.html", page)
    return replace(verdict, report_digest=sha256_bytes(page))
