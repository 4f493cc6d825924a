"""`srghn params`: every parameter, what it may be, and what it means."""

from __future__ import annotations

import json

import pytest

from srghn.config import RunParams
from tests.conftest import Srghn


def test_every_parameter_has_a_description() -> None:
    silent = [
        f"{section}.{name}"
        for section, field in RunParams.model_fields.items()
        for name, inner in field.annotation.model_fields.items()  # type: ignore[union-attr]
        if not inner.description
    ]
    assert silent == []


def test_all_are_shown_with_a_presets_values(srghn_here: Srghn) -> None:
    found = json.loads(srghn_here("params", "--preset", "lunarlander", "--json").stdout)
    shown = {each["name"]: each for each in found}
    flat = {
        f"{section}.{name}"
        for section, field in RunParams.model_fields.items()
        for name in field.annotation.model_fields  # type: ignore[union-attr]
    }
    assert set(shown) == flat
    assert shown["env.id"]["value"] == "LunarLander-v3"
    assert shown["network.stack"]["value"] == 1  # which a record leaves out
    assert shown["ghn.hidden"]["type"] == "integer at least 1 at most 512"
    assert shown["evolution.selection"]["type"] == "plus, comma, tournament"
    assert all(each["description"] for each in found)


def test_one_section_is_a_line_a_parameter_where_it_is_piped(srghn_here: Srghn) -> None:
    lines = srghn_here("params", "gate").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        f"gate.{name}" for name in type(RunParams().gate).model_fields
    ]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(("params", "gates"), "there is no section 'gates'"), (("params", "--preset", "x"), "preset")],
)
def test_a_typo_is_a_line(srghn_here: Srghn, arguments: tuple[str, ...], hint: str) -> None:
    done = srghn_here(*arguments)
    assert done.returncode == 3
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
