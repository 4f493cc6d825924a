"""The objects that all routes share; `create_app` makes them once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request
from starlette.types import Scope

from serving.aside import Room
from serving.auth import Keeper
from serving.control.episodes import Episodes
from serving.control.follower import Follower
from serving.control.notify import Sender
from serving.limits import Limits
from serving.metrics import Metrics, exposition
from serving.policy import PolicyService
from serving.registry.artefacts import store_of
from serving.registry.database import Database
from serving.registry.ledger import POLICY, Ledger
from serving.registry.trial_view import Views
from serving.schemas import BadRequest
from serving.sessions import Sessions
from serving.settings import Settings
from serving.tokens import Tokens
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: Keys of a request's scope: its policy, and the path that the caller wrote.
OF, ASKED = "srghn.policy", "srghn.asked"
_V1, _V2 = "/v1/policies/", "/v2/models/"


@dataclass
class Service:
    """One worker: the ledger it follows, the policies it serves, and the check of tokens.

    Raises `LedgerError` if the ledger cannot be opened.
    """

    settings: Settings
    limits: Limits
    ledger: Ledger = field(init=False)
    policies: dict[str, PolicyService] = field(init=False, default_factory=dict)
    draining: bool = False

    def __post_init__(self) -> None:
        database = Database(
            self.settings.database_url, home=self.settings.home, wait=self.limits.lock_seconds
        )
        self.ledger = Ledger(database, witness_key=self.settings.witness_key)
        self.store = store_of(self.settings, patience=0.0)  # followers come again by themselves
        self.room = Room(self.limits.room)
        self.keeper = Keeper(Tokens(database), self.settings.auth, self.settings.public)
        self.views = Views(self.ledger)
        self.sessions = Sessions(self.ledger.secret(POLICY), self.keeper, self.settings)
        self.discover()
        self.default.follower.looks += [self.keeper.look, self.discover]
        self.sender = Sender(self.ledger)

    @property
    def default(self) -> PolicyService:
        """The policy of requests that name none."""
        return self.policies[POLICY]

    @property
    def follower(self) -> Follower:
        return self.default.follower

    @property
    def episodes(self) -> Episodes:
        return self.default.episodes

    @property
    def metrics(self) -> Metrics:
        return self.default.metrics

    @property
    def reports(self) -> Path:
        return self.settings.home / "reports"

    def exposition(self) -> bytes:
        """The metrics of all policies in Prometheus' text format."""
        return exposition([policy.metrics for policy in self.policies.values()])

    def discover(self) -> None:
        """Add the policies that are new in the ledger. Blocks; raises `LedgerError`."""
        for name in [policy.name for policy in self.ledger.policies()]:
            if name not in self.policies:
                self.policies[name] = PolicyService(
                    name,
                    self.ledger,
                    self.store,
                    self.limits,
                    self.settings.unblind,
                    self.settings.samples,
                )

    def poll(self) -> None:
        """Read the ledger once for each policy. Blocks."""
        for policy in list(self.policies.values()):
            policy.follower.poll()

    async def run(self) -> None:
        """Follow the ledger for each policy, new ones too, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            followed: set[str] = set()
            while True:
                for name in self.policies.keys() - followed:
                    tasks.create_task(self.policies[name].follower.run())
                    followed.add(name)
                await asyncio.sleep(self.limits.poll_seconds)

    def close(self) -> None:
        for policy in self.policies.values():
            policy.follower.close()
            policy.episodes.close()
            policy.shadow.close()
            policy.samples.flush()
        self.ledger.close()

    @property
    def stopping(self) -> str | None:
        """Why this worker can serve no policy, or None."""
        if self.draining:
            return "draining: this server is about to stop"
        try:
            self.ledger.database().require()  # only checks the file's name; takes no lock
        except LedgerError as error:
            return str(error)
        return None

    def problem(self) -> str | None:
        """Why this worker is not ready, or None.

        This is the default policy's problem. If that policy has no champion, one other policy
        that is ready is enough. `PolicyService.problem` is about one policy alone.
        """
        if self.stopping is not None:
            return self.stopping
        problem = self.default.problem
        if problem is None or self.follower.served.champion is not None:
            return problem
        others = (policy.problem is None for policy in self.policies.values())
        return None if any(others) else problem

    def direct(self, scope: Scope) -> Scope:
        """The scope of a request, with the policy that its path names, if any.

        `/v1/policies/NAME/...` becomes `/v1/...` of that policy, so every policy has the same
        routes. Raises `BadRequest` (404) for a policy that is not served here.
        """
        root: str = scope.get("root_path", "")
        path: str = scope["path"].removeprefix(root)
        if path.startswith(_V1):
            name, slash, rest = path[len(_V1) :].partition("/")
            if not slash:
                return scope
            inner = f"{root}/v1/{rest}"
            named = {"path": inner, "raw_path": inner.encode(), ASKED: scope["path"]}
            return {**scope, **named, OF: self.find(name, "policy")}
        if path.startswith(_V2):
            name = path[len(_V2) :].partition("/")[0]
            if name != POLICY:  # which is the default
                return {**scope, OF: self.find(name, "model")}
        return scope

    def find(self, name: str, kind: str) -> PolicyService:
        """A policy by its name; raises `BadRequest` (404)."""
        found = self.policies.get(name)
        if found is None:
            hint = "see /v1/policies" if kind == "policy" else "see /v2"
            raise BadRequest(404, kind, "one that is served here", repr(name[:80]), hint=hint)
        return found


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def policy_of(request: Request) -> PolicyService:
    """The policy that a request's path names, else the default one."""
    found: PolicyService | None = request.scope.get(OF)
    return service_of(request).default if found is None else found
