"""The gate: one candidate, one world, one verdict, and the evidence for it in a folder.

Gate seeds are a hash of the ledger's event that took the lease: they exist only once the candidate
is fixed, nobody could preview them, and no evolution run can have seen them. Without a ledger they
are a hash of (salt, candidate digest, attempt). Candidate and incumbent play the same episodes,
both as they are served. The same inputs give the same bytes; clocks go to `timings.json` alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from regression_suite import again, behaviour, checks, estimates, tables
from regression_suite.descent import judge_lineage
from regression_suite.episodes import Progress, Seen, to_parquet
from regression_suite.evidence import Evidence
from regression_suite.examine import estimated, meet
from regression_suite.expectations import judge_tables, validate
from regression_suite.identity import identify, policy_size, read_incumbent, say
from regression_suite.rebuilt import judge_rebuilt
from regression_suite.report import render
from regression_suite.suite import left_out, policy_digest, resolved, suite_of, suite_version
from srghn import seeding
from srghn.candidates.candidate import Candidate
from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.errors import ArtefactError, GateError, expect_function
from srghn.files import atomic_write, canonical_json, sha256_bytes
from srghn.inference.verdict import Check, Verdict, decide, summarise

#: Great Expectations' page, beside the report that links it.
DATA_DOCS = "data_docs.html"


def gate_root(salt: str, candidate: str, attempt: int, lease: str | None) -> int:
    """Root seed of one attempt: of its lease, or of the candidate's digest where there is none."""
    return (
        seeding.text_seed(salt, lease)
        if lease
        else seeding.text_seed(salt, candidate, str(attempt))
    )


def judge(
    candidate_dir: Path,
    version: EnvVersion,
    mode: str,
    params: GateParams,
    out_dir: Path,
    *,
    incumbent_dir: Path | None,
    run_dir: Path | None,
    incumbent_digest: str | None = None,
    attempt: int = 1,
    history: Sequence[Mapping[str, Any]] = (),
    lease: str | None = None,
    tried: int = 0,
    recalled: bool = False,
    approval: str = "",
    suites: Path | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Judge a candidate against the incumbent, or as a first champion, and write the report.

    `mode` is the mode that is served: the primary cell is played in it. Writes `report.html`,
    `report.json`, `episodes.parquet`, `timings.json` and, last, so that it is there only if all of
    it is, `verdict.json` to `out_dir`. A candidate that cannot be read, or is not of this world, is
    judged too: failed, for that reason. The champion in `incumbent_dir` must have
    `incumbent_digest`, where one is given. `history` is the ledger's events about the candidate,
    each with `seq`, `from_state`, `to_state`, `actor` and `reason`; `lease` the hash of the
    ledger's event that began this attempt; `tried` the number of other candidates that were judged
    since this incumbent became champion. A `recalled` candidate is a former champion: it may come
    from another world, if that one has the same interface. `approval` says who may approve a pass,
    and until when; `suites` is the folder in which suites of expectations are kept.

    Raises `GateError` when the attempts are used up or the champion that is named was not given,
    `ConfigError` for a mode or a perturbation that the world does not have.
    """
    _check_request(params, attempt, incumbent_digest, incumbent_dir)
    expect_function(progress, "judge: progress")
    rules, params = policy_digest(params), resolved(params, version)
    started = time.perf_counter()
    (out_dir / "verdict.json").unlink(missing_ok=True)
    found = identify(candidate_dir, version, params, recalled)
    evidence = Evidence(
        version,
        mode,
        params,
        attempt,
        found.digest,
        found.candidate,
        found.checks,
        history=history,
        rules=rules,
        lease=lease,
        tried=tried,
        approval=approval,
        suite=suite_of(params, version),
        left_out=left_out(version, mode, params),
    )
    if found.sound and incumbent_dir is not None:
        check, champion = read_incumbent(incumbent_dir, version, incumbent_digest)
        evidence = replace(evidence, incumbent=champion, checks=(*evidence.checks, check))
    timings: dict[str, Any] = {}
    if all(check.outcome == "passed" for check in evidence.checks):
        evidence = _examine(evidence, run_dir, progress, timings)
    verdict = _write(evidence, out_dir)
    if suites is not None and evidence.quality is not None:
        evidence.quality.keep_suites(suites)
    timings["seconds"] = time.perf_counter() - started
    atomic_write(out_dir / "timings.json", json.dumps(timings, indent=1))
    atomic_write(out_dir / "verdict.json", verdict.to_json())
    return verdict


def _check_request(
    params: GateParams, attempt: int, incumbent: str | None, incumbent_dir: Path | None
) -> None:
    if not 1 <= attempt <= params.attempts:
        raise GateError(
            f"attempt {attempt}, but a candidate may be judged {params.attempts} times; evolve "
            "another candidate"
        )
    if incumbent is not None and incumbent_dir is None:
        raise GateError(f"the lease names champion {incumbent[:16]}…, but its folder was not given")


def _examine(
    evidence: Evidence, run_dir: Path | None, progress: Progress | None, timings: dict[str, Any]
) -> Evidence:
    """Play every cell until it is decided, then judge all the rest beside a replayed share."""
    candidate, incumbent = evidence.candidate, evidence.incumbent
    assert candidate is not None
    root = gate_root(evidence.params.salt, candidate.digest, evidence.attempt, evidence.lease)
    began = time.perf_counter()
    evidence, seen = meet(evidence, root, progress)
    timings["playing"] = time.perf_counter() - began
    latency = _latency(evidence, candidate, seen)
    with ThreadPoolExecutor(1) as aside:  # a process of its own plays, this thread only waits
        replayed: Future[Check] = aside.submit(
            again.judge_again,
            evidence.played,
            candidate,
            incumbent,
            evidence.version,
            evidence.mode,
            root,
        )
        evidence = _add(evidence, *behaviour.judge_behaviour(evidence.behaviour))
        evidence = _add(evidence, judge_rebuilt(candidate, evidence.version.interface, seen))
        evidence = _judge_returns(evidence)
        evidence = _add(evidence, behaviour.judge_latency(latency, evidence.params))
        evidence = _judge_run(evidence, run_dir)
        timings["latency"] = None if latency is None else asdict(latency)
        return _add(evidence, replayed.result())


def _latency(evidence: Evidence, candidate: Candidate, seen: Seen) -> behaviour.Latency | None:
    if not len(seen):
        return None
    reference = behaviour.reference_policy(evidence.version.interface.observation_size)
    return behaviour.measure_latency(candidate.policy(), reference, seen)


def _judge_returns(evidence: Evidence) -> Evidence:
    params, scale = evidence.params, estimates.scale_of(evidence.params, evidence.tried)
    evidence = replace(evidence, cells=estimated(evidence))
    cells = evidence.cells
    if evidence.incumbent is None or cells[0].problem is not None:
        gains: list[Check] = []
    else:
        assert evidence.candidate is not None
        pooled = estimates.pooled_gain(evidence.played, scale)
        sizes = policy_size(evidence.candidate), policy_size(evidence.incumbent)
        gains = checks.secondary_gains(cells[0], params, pooled, sizes)
    first = checks.cell_checks(cells[0], params, gains, _elsewhere_good(evidence))
    others = [checks.cell_checks(cell, params) for cell in cells[1:]]
    return _add(evidence, *first, *checks.worst_first(others), *gains)


def _elsewhere_good(evidence: Evidence) -> str:
    """Why a candidate that was evolved in another mode fails in the one that is served."""
    candidate, mode = evidence.candidate, evidence.mode
    if candidate is None or candidate.mode == mode:
        return ""
    return (
        f"It was evolved in mode {candidate.mode}, but it is judged in mode {mode}, which is "
        "served: evolve in that mode, or set the served one (srghn mode set) once the "
        "environment has switched."
    )


def _judge_run(evidence: Evidence, run_dir: Path | None) -> Evidence:
    """The run's tables, and the candidate's place in them."""
    candidate = evidence.candidate
    assert candidate is not None
    run, quality, problem = None, None, ""
    if run_dir is not None:
        try:
            run = tables.read(run_dir)
            limit = evidence.version.max_episode_steps
            quality = validate(run, evidence.played, limit)
        except ArtefactError as error:
            problem = say(error)
    believed = run if quality is not None and quality.success else None
    evidence = replace(evidence, tables=believed, quality=quality)
    lineage = judge_lineage(candidate, believed)
    return _add(evidence, lineage, judge_tables(quality, problem))


def _add(evidence: Evidence, *found: Check) -> Evidence:
    return replace(evidence, checks=(*evidence.checks, *found))


def _verdict(evidence: Evidence) -> Verdict:
    outcome, bound = decide(evidence.checks)
    deviation, promise = _in_service(evidence)
    return Verdict(
        verdict=outcome,
        checks=evidence.checks,
        bound_by=bound.name,
        summary=summarise(outcome, bound),
        candidate_digest=evidence.digest,
        env_fingerprint=evidence.version.fingerprint,
        mode=evidence.mode,
        suite_version=suite_version(evidence.params, evidence.version),
        policy_digest=evidence.rules,
        incumbent_digest=_digest(evidence.incumbent),
        attempt=evidence.attempt,
        lease=evidence.lease,
        deviation=deviation,
        promise=promise,
    )


def _in_service(evidence: Evidence) -> tuple[float | None, float | None]:
    """What a trial is planned with, and what the watch holds a champion to: see `Verdict`."""
    if not evidence.played:
        return None, None
    returns = evidence.played[0].returns
    scale = estimates.scale_of(evidence.params)
    return float(scale.unit(returns).std()), estimates.promised(returns, evidence.params)


def _digest(candidate: Candidate | None) -> str | None:
    return None if candidate is None else candidate.digest


def _write(evidence: Evidence, out_dir: Path) -> Verdict:
    """Write the evidence, each file naming the digest of the one before; give the verdict.

    The verdict names them all, so that a file that was changed, or left out, is found by whoever
    holds the verdict.
    """
    verdict, digests = _verdict(evidence), {}
    (out_dir / "episodes.parquet").unlink(missing_ok=True)
    if evidence.played:
        digests["episodes.parquet"] = _keep(
            out_dir, "episodes.parquet", to_parquet(evidence.played)
        )
    content = canonical_json(evidence.to_dict(verdict, digests.get("episodes.parquet")))
    digests["report.json"] = _keep(out_dir, "report.json", content)
    (out_dir / DATA_DOCS).unlink(missing_ok=True)
    if evidence.quality is not None:
        digests[DATA_DOCS] = _keep(out_dir, DATA_DOCS, evidence.quality.docs.encode())
    page = render(evidence, verdict, digests["report.json"]).encode()
    digests["report.html"] = _keep(out_dir, "report.html", page)
    return replace(verdict, report_digest=digests["report.html"], evidence=digests)


def _keep(folder: Path, name: str, data: bytes) -> str:
    atomic_write(folder / name, data)
    return sha256_bytes(data)
