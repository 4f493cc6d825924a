"""Names of policies: what a URL, a folder and a metric's label can hold alike."""

from __future__ import annotations

import re

from srghn.errors import ConfigError

#: The policy where none is named.
DEFAULT = "policy"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,98}[a-z0-9])?")


def check_name(name: str) -> str:
    """The name itself; raises `ConfigError` for one that cannot be a policy's."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"a policy's name is 1 to 100 of a-z 0-9 _ . -, beginning and ending with a letter or "
            f"digit, got {name!r}"
        )
    return name


def base_of(policy: str) -> str:
    """Where the routes of a policy begin."""
    return "/v1" if policy == DEFAULT else f"/v1/policies/{policy}"


def page_of(policy: str) -> str:
    """Where the page of a policy is."""
    return "/" if policy == DEFAULT else f"/policies/{policy}"
