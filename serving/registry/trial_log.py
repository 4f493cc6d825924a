"""Turns a trial's rows into its evidence, and repeats decisions on it."""

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

    `held`: they are of a holdback, in which the champion is the tried arm and its predecessor the
    other. An outcome is missing (NaN) if it did not arrive by the episode's deadline, if it was
    not counted, or if the episode changed its version.
    """
    tried = CHAMPION_ARM if held else CANARY_ARM
    weights = np.array([row.weight for row in found], np.float64)
    return Log(
        np.array([row.arm == tried for row in found], np.int8),
        1 - weights if held else weights,
        np.array([_value(row, rules) for row in found], np.float64),
        tuple(row.poster for row in found),
    )


def to_state(data: Mapping[str, Any], rules: TrialRules) -> TrialState:
    """A trial's stored state; empty data give the initial state."""
    return TrialState.from_json(data) if data else begin(rules)


def decide_again(connection: Connection, running: Canary, now: float) -> Decision:
    """The decision on all starts of a trial that are resolved at `now` (Unix seconds)."""
    return counted(connection, running.policy, running.epoch, running.rules, now)[1]


def counted(
    connection: Connection, policy: str, epoch: int, rules: TrialRules, now: float
) -> tuple[TrialState, Decision]:
    """State and decision of a trial after all its starts that are resolved at `now`.

    They are computed from the trial's initial state, which is part of the hash-chained event. The
    running state is not used: it is a row, which anyone who can write the file could change, and
    lacks what no worker has counted yet.
    """
    log = to_log(episodes.resolved(connection, policy, epoch, 0, now), rules)
    began = _began(connection, epoch).get("state") or {}
    return advance(to_state(began, rules), log, rules)


def decide_held(connection: Connection, window: Holdback, now: float) -> Decision:
    """The decision on all starts of a holdback that are resolved at `now` (Unix seconds)."""
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
