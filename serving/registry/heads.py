"""Signed heads of the chain that are kept in MLflow, beside the witness file.

A person who can write this home's files could wind back the ledger and its witness together, and
sign again with the key there. A tracking server on another machine still has the heads that the
mirror delivered, and `srghn doctor` compares the history with them. The newest head is enough,
because each event fixes all earlier ones. After a restore, earlier heads are void.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from srghn.errors import LedgerError
from srghn.files import canonical_json

#: Prefix of a tag's name; the number of the head's event follows.
TAG = "srghn.head."
#: Heads that are kept for each policy's model; older ones add no information.
KEPT = 20


@dataclass(frozen=True)
class Head:
    """The chain's head at one moment, with the number of restores; `key`: public key in hex."""

    restores: int
    seq: int
    hash: str
    at: str
    key: str
    signature: str = ""

    def signed(self) -> bytes:
        fields = asdict(self)
        del fields["signature"]
        return canonical_json(fields)

    @property
    def tag(self) -> str:
        return f"{TAG}{self.restores}.{self.seq}"

    @property
    def value(self) -> str:
        return canonical_json(asdict(self)).decode()


def of_tags(tags: Mapping[str, str]) -> list[Head]:
    """The heads among a model's tags, oldest first; raises `LedgerError` for an invalid one."""
    found = []
    for name, value in tags.items():
        if name.startswith(TAG):
            try:
                head = Head(**json.loads(value))
            except (ValueError, TypeError) as error:
                raise LedgerError(
                    f"MLflow's tag {name} is no signed head: {value[:100]!r}; somebody changed it. "
                    "Compare the ledger with a backup, then delete the tag"
                ) from error
            found.append(head)
    return sorted(found, key=lambda head: (head.restores, head.seq))
