"""Interfaces of policies as clients see them, and the differences between two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from srghn.files import canonical_json, sha256_bytes

#: Key of a version's record: it may have other observations than the champion.
SUCCESSOR = "successor"
#: The fields that clients depend on. Bounds may change with a version of the environment.
ACTIONS = ("kind", "n", "action_kind", "action_shape", "choices", "starts")
_OF_LEAF = ("path", "kind", "shape", "counts", "starts")

Interface = Mapping[str, Any]


def difference(served: Interface | None, other: Interface | None) -> str | None:
    """The change that clients would see from one interface to the other, as text; None if none."""
    if served is None or other is None:
        return None
    changed = _of_actions(served, other)
    if changed is not None:
        return changed
    size, others = served.get("observation_size"), other.get("observation_size")
    if size != others:
        return f"observations of {size} numbers, the candidate has {others}"
    before, after = _leaves(served), _leaves(other)
    if before is not None and after is not None and before != after:
        leaf = next(a or b for a, b in _pairs(before, after) if a != b)
        return f"other parts of an observation, first {json.loads(leaf)['path']}"
    return None


def replaced(current: Mapping[str, Any], former: Mapping[str, Any]) -> bool:
    """Whether the champion is a successor with other observations; both are manifests."""
    changed = difference(current.get("interface"), former.get("interface"))
    return changed is not None and bool(current.get(SUCCESSOR))


def other_actions(served: Interface | None, other: Interface | None) -> str | None:
    """As `difference`, for actions only."""
    return None if served is None or other is None else _of_actions(served, other)


def key_of(interface: Interface) -> str:
    """A client's name for an interface: 16 hexadecimal digits of a hash of its fields."""
    said = {name: interface.get(name) for name in ("observation_size", *ACTIONS)}
    leaves = _leaves(interface)
    if leaves is not None:
        said["layout"] = leaves
    return sha256_bytes(canonical_json(said))[:16]


def _of_actions(served: Interface, other: Interface) -> str | None:
    for name in ACTIONS:
        if served.get(name) != other.get(name):
            return f"{name} {served.get(name)}, the candidate has {other.get(name)}"
    return None


def _leaves(interface: Interface) -> list[str] | None:
    """The parts of an observation, each as JSON; None for a flat one, and before 0.3."""
    layout = interface.get("layout")
    if layout is None:
        return None
    return [json.dumps({k: leaf.get(k) for k in _OF_LEAF}) for leaf in layout["leaves"]]


def _pairs(before: list[str], after: list[str]) -> list[tuple[str, str]]:
    count = max(len(before), len(after))
    padded = [side + [""] * (count - len(side)) for side in (before, after)]
    return list(zip(*padded, strict=True))
