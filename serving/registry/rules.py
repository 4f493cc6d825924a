"""Deployment rules: who may approve, and what must happen before a trial. Events in the ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, select, update

from serving.registry import rows, schema
from serving.registry.steps import Step
from serving.trial.assignment import BUCKETS
from serving.trial.rules import GuardTerms, TrialTerms
from srghn.config import explain
from srghn.errors import ConfigError


class WatchTerms(BaseModel):
    """When the watch over a champion raises an alarm; shares are of the range of returns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_length: float = Field(
        default=100_000,
        ge=100,
        description="average number of outcomes before a false alarm, while returns hold",
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
    missing: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="rise of the share of missing outcomes, above that when the champion came, "
        "that is no alarm",
    )


class AdaptTerms(BaseModel):
    """Automatic steps after an alarm. Gate and trial always come before service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    act: Literal["off", "ask", "run"] = Field(
        default="ask",
        description="after an alarm: off: nothing; ask: diagnose and advise; run: also act",
    )
    set_mode: bool = Field(
        default=True, description="a diagnosis of another mode becomes the mode of service"
    )
    approve: Literal["manual", "auto"] = Field(
        default="manual", description="who approves a version made after an alarm"
    )
    generations: int = Field(default=60, ge=1, description="most generations of one run")
    evaluations: int = Field(
        default=100_000, ge=1, description="most episodes of one evolution run"
    )
    runs_a_day: int = Field(default=3, ge=0, description="most evolution runs within 24 hours")
    cooldown: float = Field(
        default=3600.0, ge=0, description="least seconds between the starts of two evolution runs"
    )


class HoldbackTerms(BaseModel):
    """A holdback: after a promotion, a random share of episodes stays on the predecessor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(
        default=0.1,
        ge=1 / BUCKETS,
        le=1 - 1 / BUCKETS,
        description="share of new episodes that stay on the predecessor, in steps of 1/10000",
    )
    episodes: int = Field(default=4000, ge=2, description="episodes after which the window ends")
    hours: float = Field(default=24.0, gt=0, description="hours after which the window ends")


class DeploymentRules(BaseModel):
    """How a policy's passed versions become champions. Every field here has an effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    approver: Literal["anyone", "person"] = Field(
        default="anyone", description="person: no automatic approval (`--approve auto`)"
    )
    two_persons: bool = Field(
        default=False, description="a person who submitted a version may not approve it"
    )
    shadow_first: bool = Field(
        default=False, description="a version is a shadow before its trial begins"
    )
    shadow_copies: int = Field(
        default=200,
        ge=1,
        description="copies of requests that the shadow must answer before its trial begins",
    )
    shadow_then: Literal["person", "trial"] = Field(
        default="person",
        description="who begins the trial once the shadow has answered enough copies and broken "
        "no guard: a person, or the server (trial)",
    )
    guards: GuardTerms = Field(
        default=GuardTerms(), description="errors, invalid actions and latency that end a trial"
    )
    holdback: HoldbackTerms | None = Field(
        default=None,
        description="after a promotion, keep a share of episodes on the predecessor, and bring it "
        "back once if the champion does harm; None: no holdback",
    )
    trial: TrialTerms | None = Field(
        default=None, description="rules of trials; None: the run's `canary` section"
    )
    watch: WatchTerms = Field(
        default=WatchTerms(), description="how the champion's returns are watched"
    )
    adapt: AdaptTerms = Field(default=AdaptTerms(), description="automatic steps after an alarm")
    poster_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="largest share of the evidence of a trial, its guards or the watch that one "
        "token may give; below 1 a trial needs 20 outcomes for a decision, and holds for trials "
        "that begin later",
    )


#: What holds for a policy that no event gave rules.
DEFAULTS = DeploymentRules()


def parse_rules(data: dict[str, object]) -> DeploymentRules:
    """Check rules; raises `ConfigError` that names the unknown or out-of-range rule."""
    try:
        return DeploymentRules.model_validate(data)
    except ValidationError as error:
        said = explain(error, model=DeploymentRules, what="deployment rule")
        raise ConfigError(f"deployment rules: {said}") from error


def current_rules(connection: Connection, policy: str) -> DeploymentRules:
    """The rules that the last event about them set; the defaults if there is none."""
    rows.find_policy(connection, policy)
    query = select(schema.policies.c.rules_sha256).where(schema.policies.c.name == policy)
    digest = connection.execute(query).scalar()
    return DEFAULTS if digest is None else parse_rules(rows.find_evidence(connection, digest))


def set_rules(step: Step, rules: DeploymentRules) -> None:
    """Set the rules, as an event of the policy."""
    event = step.record(None, None, None, rules.model_dump(mode="json"))
    change = update(schema.policies).where(schema.policies.c.name == step.policy)
    step.connection.execute(change.values(rules_sha256=event.evidence_sha256))
