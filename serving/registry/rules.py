"""Deployment rules: who may approve, and what must happen before a trial. Events in the ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, select, update

from serving.registry import rows, schema
from serving.registry.steps import Step
from serving.trial.rules import GuardTerms, TrialTerms
from srghn.errors import ConfigError


class WatchTerms(BaseModel):
    """When the watch over a champion alarms; shares are of the range of returns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_length: float = Field(
        default=100_000,
        ge=100,
        description="outcomes that pass on average before a false alarm, while returns hold",
    )
    margin: float = Field(
        default=0.05, ge=0, lt=1, description="loss below the gate's lower bound that is no alarm"
    )
    answered: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of ended episodes with an outcome below which the watch is blind",
    )


class AdaptTerms(BaseModel):
    """What is done by itself after an alarm. Gate and trial come before service as always."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    act: Literal["off", "ask", "run"] = Field(
        default="ask",
        description="after an alarm: nothing; diagnose and say what to do; or do it, too",
    )
    set_mode: bool = Field(
        default=True, description="a diagnosis of another mode becomes the mode of service"
    )
    approve: Literal["manual", "auto"] = Field(
        default="manual", description="who approves a pass that came of it"
    )
    generations: int = Field(default=60, ge=1, description="of one evolution run at most")
    evaluations: int = Field(
        default=100_000, ge=1, description="episodes that one evolution run plays at most"
    )
    runs_a_day: int = Field(default=3, ge=0, description="evolution runs within 24 hours at most")
    cooldown: float = Field(
        default=3600.0, ge=0, description="seconds between the beginnings of two evolution runs"
    )


class HoldbackTerms(BaseModel):
    """After a promotion a random share of episodes stays on the predecessor, for a while."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(
        default=0.1, gt=0, lt=1, description="share of new episodes that stay on the predecessor"
    )
    episodes: int = Field(default=4000, ge=2, description="episodes after which the window is over")
    hours: float = Field(default=24.0, gt=0, description="hours after which it is over")


class DeploymentRules(BaseModel):
    """How a policy's passes become champions. A field is here only if something acts on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    approver: Literal["anyone", "person"] = Field(
        default="anyone", description="person: the configured policy may not approve by itself"
    )
    two_persons: bool = Field(
        default=False, description="whoever registered or judged a version may not approve it"
    )
    shadow_first: bool = Field(
        default=False, description="a version is a shadow before its trial begins"
    )
    shadow_copies: int = Field(
        default=200,
        ge=1,
        description="copies of requests that such a shadow has answered before its trial begins",
    )
    guards: GuardTerms = Field(
        default=GuardTerms(), description="errors, invalid actions and latency that end a trial"
    )
    holdback: HoldbackTerms | None = Field(
        default=None,
        description="after a promotion a share of episodes stays on the predecessor, and harm "
        "brings it back by itself, once; None: not",
    )
    trial: TrialTerms | None = Field(
        default=None, description="how trials run; None: as the run's `canary` section asks"
    )
    watch: WatchTerms = Field(
        default=WatchTerms(), description="how the champion's returns are watched"
    )
    adapt: AdaptTerms = Field(
        default=AdaptTerms(), description="what is done by itself after an alarm"
    )
    poster_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="largest share of a trial's evidence that one token may post",
    )


def parse_rules(data: dict[str, object]) -> DeploymentRules:
    """Raises `ConfigError` naming the rule that is unknown or out of range."""
    try:
        return DeploymentRules.model_validate(data)
    except ValidationError as error:
        item = error.errors()[0]
        name = ".".join(map(str, item["loc"])) or "rules"
        known = ", ".join(DeploymentRules.model_fields)
        raise ConfigError(
            f"deployment rule {name}: {item['msg']}, got {item['input']!r}; known: {known}"
        ) from error


def current_rules(connection: Connection, policy: str) -> DeploymentRules:
    """The rules that the last event about them set; the defaults if there is none."""
    rows.find_policy(connection, policy)
    query = select(schema.policies.c.rules_sha256).where(schema.policies.c.name == policy)
    digest = connection.execute(query).scalar()
    return (
        DeploymentRules() if digest is None else parse_rules(rows.find_evidence(connection, digest))
    )


def set_rules(step: Step, rules: DeploymentRules) -> None:
    """Write them as an event of the policy."""
    event = step.record(None, None, None, rules.model_dump(mode="json"))
    change = update(schema.policies).where(schema.policies.c.name == step.policy)
    step.connection.execute(change.values(rules_sha256=event.evidence_sha256))
