"""Parameter files: UTF-8, each key once, numbers as JSON and DVC read them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from srghn.config import RunParams, load_params, with_overrides
from srghn.errors import ConfigError
from srghn.yaml_files import dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+3", 3),
        ("010", 10),
        ("0o10", 8),
        ("0x1f", 31),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
    ],
)
def test_a_plain_value_is_what_json_or_dvc_would_call_it(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}", "test")["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    assert math.isnan(parse_yaml(".nan", "test"))


def test_free_form_values_reach_a_world_as_they_were_meant(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("env:\n  kwargs: {noise: 1e-3, code: 010, at: 12:30, day: 2026-01-02}\n")
    expected = {"noise": 0.001, "code": 10, "at": "12:30", "day": "2026-01-02"}
    assert load_params(path).env.kwargs == expected
    given = ("env.kwargs.noise=1e-3", "env.kwargs.code=010", "env.kwargs.at=12:30")
    set_ = with_overrides(RunParams(), given).env.kwargs
    assert set_ == {k: v for k, v in expected.items() if k != "day"}


def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("gate:\n  margin: 0.1\nevolution: {}\ngate:\n  min_return: 1\n")
    with pytest.raises(ConfigError) as refused:
        load_params(path)
    said = f"{path}: the key 'gate' appears twice, in line 1 and in line 4; keep one of them"
    assert str(refused.value) == said


def test_so_is_one_deep_inside_and_one_in_a_set_value() -> None:
    with pytest.raises(ConfigError, match="'hidden' appears twice"):
        parse_yaml("network:\n  kwargs: {hidden: [8], hidden: [4]}\n", "test")
    with pytest.raises(ConfigError, match="'a' appears twice"):
        with_overrides(RunParams(), ["env.kwargs={a: 1, a: 2}"])


def test_a_merged_mapping_may_override_what_it_merges() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n"
    assert parse_yaml(text, "test")["c"] == {"x": 2, "y": 3}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "!!python/object:os.system {}"])
def test_what_is_no_yaml_is_said_in_a_line(text: str) -> None:
    with pytest.raises(ConfigError, match="is not valid YAML") as refused:
        parse_yaml(text, "file.yaml")
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        with_overrides(RunParams(), [f"env.kwargs={text}"])
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_utf8_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("env:\n  id: Zürich-v1\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8: byte 0xfc in line 2; save it as UTF-8"):
        read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("\ufeffenv: {}\n".encode())
    assert read_yaml(path) == {"env": {}}


def test_letters_are_read_alike_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("env:\n  kwargs: {name: Zürich}\n", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from srghn.config import load_params\n"
        "name = load_params(Path(sys.argv[1])).env.kwargs['name']\n"
        "sys.stdout.buffer.write(name.encode('utf-8'))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, check=True
    )
    assert done.stdout.decode("utf-8") == "Zürich"


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from(["1e-3", "010", "0o7", "12:30", "yes", "off", "2026-01-02", "1_0", "~", "<<"]),
)
mappings = st.dictionaries(
    st.text(max_size=8), st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=4
)


@given(mappings)
def test_what_is_written_reads_back_the_same_here_and_by_yaml_1_1(data: dict[str, Any]) -> None:
    text = dump_yaml(data)
    assert parse_yaml(text, "test") == data
    assert yaml.safe_load(text) == data


@pytest.mark.parametrize("value", ["1e-3", "010", "12:30", "off", 1e-7, 0.001, 8, None, True])
def test_dvc_reads_what_is_written(value: Any) -> None:
    assert YAML(typ="safe").load(dump_yaml({"a": value}))["a"] == value


def test_a_file_without_parameters_or_with_a_slip_is_refused_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml is empty; write parameters into it"):
        read_yaml(path)
    path.write_text("env:\n  id: a\n   fresh: true\n")
    with pytest.raises(ConfigError, match=r"not allowed here, line 3, column 9: fresh: true \^"):
        read_yaml(path)
