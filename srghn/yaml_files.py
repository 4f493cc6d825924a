"""YAML as parameters need it: strict, and of version 1.2, which DVC reads too.

PyYAML follows YAML 1.1, which makes an octal number of `010`, sixty-based numbers of `12:30`, a
date of `2026-01-02`, a truth value of `off`, and a text of `1e-3`; and of a key that stands twice
it silently keeps the last. Here a number is what JSON calls a number, everything else is text, and
a repeated key is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from srghn.errors import ConfigError

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_DIGITS, _SIGNS = list("0123456789"), list("-+.")
#: Tag -> what a plain scalar of it looks like, and the letters it begins with; the first that fits.
_CORE = (
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, _DIGITS + _SIGNS),
    ("tag:yaml.org,2002:float", _FLOAT, _DIGITS + _SIGNS),
    ("tag:yaml.org,2002:merge", re.compile(r"<<"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema; a repeated key is an error that names its line."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in seen:
                    raise _Twice(f"the key {key.value!r} appears twice", line, seen[name])
                seen[name] = line
        return node

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)

    def construct_real(self, node: yaml.ScalarNode) -> float:
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else."""


class _Twice(yaml.YAMLError):
    def __init__(self, said: str, line: int, first: int) -> None:
        super().__init__(f"{said}, in line {first} and in line {line}")


for _tag, _pattern, _letters in _CORE:
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(_tag, _whole, _letters)
    _Dumper.add_implicit_resolver(_tag, _whole, _letters)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_real)


def parse_yaml(text: str, source: str) -> Any:
    """What `text` holds; `source` (a file's name) opens the message on failure.

    Raises `ConfigError` in one line, with the line of the text where there is one.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except _Twice as error:
        raise ConfigError(f"{source}: {error}; keep one of them") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
        raise ConfigError(f"{source} is not valid YAML: {said}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A file that holds a mapping; raises `ConfigError` naming the file and what is wrong."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read parameters from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}; "
            "save it as UTF-8"
        ) from error
    data = parse_yaml(text, str(path))
    if data is None:
        raise ConfigError(f"{path} is empty; write parameters into it, such as env: {{id: ...}}")
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of parameters, found {type(data).__name__}")
    return data


def dump_yaml(data: Mapping[str, Any]) -> str:
    """`data` as YAML, in its own order, that reads back the same here, by YAML 1.1 and in DVC."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)
