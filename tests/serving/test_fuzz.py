"""A few cases of Schemathesis over every route of the description; `make fuzz` has 10,000."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.fuzzing import fuzzed

pytestmark = pytest.mark.services


def test_no_answer_is_a_failure_or_breaks_its_description(home: Any, running: Any) -> None:
    with fuzzed(home, running, seeded=7) as fuzz:
        fuzz.each(2, seeded=7)
        fuzz.stateful(2, 10, seeded=7)
    assert fuzz.problems == []
    assert {200, 404, 409, 412, 422, 428} <= set(fuzz.codes)
    assert home.ledger.verify()


def test_an_answer_that_is_not_described_would_be_found(home: Any, running: Any) -> None:
    with fuzzed(home, running, seeded=7) as fuzz:
        schema = fuzz.schema.raw_schema["paths"]["/health/live"]["get"]["responses"]["200"]
        schema["content"]["application/json"]["schema"] = {"type": "string"}
        fuzz.each(1, seeded=7, only="GET /health/live")
    assert len(fuzz.problems) == 1
    assert "GET /health/live" in fuzz.problems[0]
