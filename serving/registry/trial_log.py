"""A trial's rows as its evidence: what decisions read, and how one is made again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from serving.registry import episodes, rows, schema
from serving.registry.records import CANARY_ARM, CHAMPION_ARM, Canary, Holdback, StartRow
from serving.trial.decision import Decision, advance
from serving.trial.evidence import Log, TrialState, begin
from serving.trial.rules import TrialRules


def to_log(found: Sequence[StartRow], rules: TrialRules, held: bool = False) -> Log:
    """Starts in their order as evidence.

    With `held`, of a holdback: the champion is the arm that is tried, beside its predecessor.
    An outcome is missing (NaN) where none came by the episode's deadline, where it was not counted,
    and where the episode changed version on the way.
    """
    tried = CHAMPION_ARM if held else CANARY_ARM
    weights = np.array([row.weight for row in found], np.float64)
    return Log(
        np.array([row.arm == tried for row in found], np.int8),
        1 - weights if held else weights,
        np.array([_value(row, rules) for row in found], np.float64),
    )


def to_state(data: Mapping[str, Any], rules: TrialRules) -> TrialState:
    """The state that the ledger keeps of a trial; an empty one is its beginning."""
    return TrialState.from_json(data) if data else begin(rules)


def decide_again(connection: Connection, running: Canary, now: float) -> Decision:
    """The decision on every start of a trial that is resolved at `now` (Unix seconds).

    It resumes from the state that the trial began with, which is part of the hash-chained event,
    and never from the running one, which is a row that anybody with the file could write.
    """
    log = to_log(
        episodes.resolved(connection, running.policy, running.epoch, 0, now), running.rules
    )
    began = _began(connection, running.epoch).get("state") or {}
    return advance(to_state(began, running.rules), log, running.rules)[1]


def decide_held(connection: Connection, window: Holdback, now: float) -> Decision:
    """The decision on every start of a holdback that is resolved at `now`, from the first on."""
    found = episodes.resolved(connection, window.policy, window.epoch, 0, now)
    return advance(begin(window.rules), to_log(found, window.rules, held=True), window.rules)[1]


def _began(connection: Connection, epoch: int) -> dict[str, Any]:
    """Evidence of the event that began a trial."""
    table = schema.events
    query = select(table.c.evidence_sha256).where(table.c.seq == epoch)
    return rows.find_evidence(connection, connection.execute(query).scalar_one())


def began_with(connection: Connection, epoch: int) -> TrialRules:
    """The rules that a trial began with."""
    return TrialRules.read(json.dumps(_began(connection, epoch)["params"]))


def _value(row: StartRow, rules: TrialRules) -> float:
    late = row.ended_at is not None and row.ended_at > row.deadline
    if row.return_ is None or late or row.moved or not row.counted:
        return float("nan")
    return rules.scale(row.return_)
