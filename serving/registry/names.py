"""Names of policies. They must be valid in a URL, as a folder, and as a metric's label."""

from __future__ import annotations

import re

from srghn.errors import ConfigError

#: The default policy.
DEFAULT = "policy"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,98}[a-z0-9])?")


def check_name(name: str) -> str:
    """The name itself; raises `ConfigError` if it is not valid."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"a policy's name is 1 to 100 of a-z 0-9 _ . -, beginning and ending with a letter or "
            f"digit, got {name!r}"
        )
    return name


def base_of(policy: str) -> str:
    """The path prefix of a policy's routes."""
    return "/v1" if policy == DEFAULT else f"/v1/policies/{policy}"


def page_of(policy: str) -> str:
    """The path of a policy's page."""
    return "/" if policy == DEFAULT else f"/policies/{policy}"
