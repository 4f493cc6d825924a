"""Schemathesis against a real server: what its description allows, and what it does not.

Left to chance, nearly every decision would be refused for its headers and nearly every observation
for its length; so half of the cases get a version that exists, headers that hold, four numbers.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.tokens import Tokens
from tests.serving.test_serving_process import ready, wait_for
from tests.serving.test_serving_review import passed

CHECKS = (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
#: Each case is another caller's: wrong tokens, of which there are many, slow their caller down.
PROXY = {"SRGHN_TRUSTED_PROXIES": "127.0.0.1"}
MODES = {"lawful": GenerationMode.POSITIVE, "unlawful": GenerationMode.NEGATIVE}


@dataclass
class Fuzz:
    """A server's description, how it is called, and what came of it."""

    url: str
    token: str
    random: random.Random
    session: requests.Session = field(default_factory=requests.Session)
    codes: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self.schema: Any = schemathesis.openapi.from_url(f"{self.url}/openapi.json")

    def call(self, case: Any) -> None:
        """Send a case; raises what is wrong with its answer: 5xx but 503, or no such answer."""
        self.mend(case)
        begun = time.monotonic()
        answer = case.call(session=self.session, headers=self.headers(), timeout=30)
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.codes[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        case.validate_response(answer, checks=list(CHECKS))

    def headers(self) -> dict[str, str]:
        """A token, and a caller's address that no case before had."""
        address = ".".join(str(self.random.randint(1, 254)) for _ in range(4))
        return {"Authorization": f"Bearer {self.token}", "X-Forwarded-For": address}

    def mend(self, case: Any) -> None:
        """Let half of the cases get past the first refusals."""
        if self.random.random() < 0.5:
            return
        if "version" in (case.path_parameters or {}):
            case.path_parameters["version"] = str(self.random.randint(1, 4))
        for name in ("model", "policy"):
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = "policy"
        if isinstance(case.headers, Mapping) and "If-Match" in case.headers:
            case.headers["If-Match"] = str(self.random.randint(1, 3))
            case.headers["Idempotency-Key"] = f"key-{self.random.randint(0, 500)}"
        body = case.body
        if isinstance(body, dict) and isinstance(body.get("observation"), list):
            body["observation"] = (body["observation"] + [0.0] * 4)[:4]
        if isinstance(body, dict) and isinstance(body.get("observations"), list):
            body["observations"] = [[0.0] * 4 for _ in body["observations"]]

    def each(self, count: int, seeded: int, only: str = "") -> None:
        """So many cases of every route (or of one), lawful and unlawful by turns."""
        for found in self.schema.get_all_operations():
            operation = found.ok()
            if only not in ("", operation.label):
                continue
            for number, mode in enumerate(MODES.values()):
                strategy = operation.as_strategy(generation_mode=mode)
                self._run(operation.label, strategy, count, seeded + number)

    def _run(self, name: str, strategy: Any, count: int, seeded: int) -> None:
        @seed(seeded)
        @_quiet(count)
        @given(case=strategy)
        def run(case: Any) -> None:
            self.call(case)

        try:
            run()
        except Unsatisfiable:
            pass  # there is nothing to get wrong on this route
        except (AssertionError, FailureGroup) as error:
            self.problems.append(f"{name}: {error}")

    def stateful(self, runs: int, steps: int, seeded: int) -> None:
        """So many walks of so many steps, each going on from answers of those before."""
        fuzz, machine = self, self.schema.as_state_machine()

        class Walk(machine):  # type: ignore[misc, valid-type]
            def call(self, case: Any, **more: Any) -> Any:
                fuzz.mend(case)
                answer = case.call(session=fuzz.session, headers=fuzz.headers(), timeout=30)
                fuzz.codes[answer.status_code] += 1
                assert answer.status_code < 500 or answer.status_code == 503, answer.text
                return answer

            def validate_response(self, response: Any, case: Any, **more: Any) -> None:
                case.validate_response(response, checks=list(CHECKS))

        for number in range(runs):  # one at a time: what the server is after one is not before it
            try:
                run_state_machine_as_test(
                    seed(seeded + number)(Walk),
                    settings=settings(_quiet(1), stateful_step_count=steps),
                )
            except (AssertionError, FailureGroup) as error:
                self.problems.append(f"walk {number}: {error}")


def _quiet(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )


@contextlib.contextmanager
def fuzzed(home: Any, running: Any, seeded: int) -> Iterator[Fuzz]:
    """A server with a champion, one before it, a version on trial and one that waits."""
    home.first()
    home.second(bias=2.0)
    home.steps.canary(home.approved(bias=1.0))
    passed(home)
    token = Tokens(home.ledger.database()).add("root", ["admin"])
    with running(home, environment=PROXY) as (url, process):
        wait_for(ready(url))
        yield Fuzz(url, token, random.Random(seeded))
        assert process.poll() is None
        assert requests.get(f"{url}/health/live", timeout=60).status_code == 200
