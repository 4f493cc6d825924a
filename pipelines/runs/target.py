"""What a run's candidate is for: which policy, and whether it may bring other observations."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.registry.names import DEFAULT, check_name
from srghn.errors import ConfigError
from srghn.files import atomic_write


@dataclass(frozen=True)
class Target:
    """A policy by its name. A `successor` may see other observations than the policy's champion.

    It is then judged by absolute bars, since no episode can be played by both.
    """

    policy: str = DEFAULT
    successor: bool = False

    def __post_init__(self) -> None:
        check_name(self.policy)

    @property
    def option(self) -> str:
        """What a command needs that is about this policy; nothing for the default one."""
        return "" if self.policy == DEFAULT else f" --policy {self.policy}"

    def save(self, path: Path) -> None:
        atomic_write(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Target:
        """What a file says; without one, the default policy, as before 0.3."""
        if not path.is_file():
            return cls()
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} does not name a policy: {error}") from error


#: The policy where none is named.
DEFAULT_TARGET = Target()
