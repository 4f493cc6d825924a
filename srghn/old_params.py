"""Parameters as earlier versions wrote them, in today's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Planned episodes by default until 0.2, which cannot decide.
_OLD_EPISODES = {"episodes": 100, "cell_episodes": 30}
#: A trial's range by default until 0.3, whatever the environment's was.
_OLD_RANGE = {"return_low": 0, "return_high": 500}


def modern_gate(data: Mapping[str, Any]) -> dict[str, Any]:
    """Gate rules as written by any version, in today's names.

    Until 0.2 they had `bootstrap`, and `scale` for the width of the range, which is now the
    world's; planned episodes that were the default become today's.
    """
    if not {"bootstrap", "scale"} & set(data):
        return dict(data)
    kept = {k: v for k, v in data.items() if k not in ("bootstrap", "scale")}
    return {k: v for k, v in kept.items() if _OLD_EPISODES.get(k) != v}


def modern_evolution(data: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of evolution as recorded by any version.

    Until 0.3 memory and newcomers were off by default, and a record left newcomers out where they
    were off. A record has every field that there was, so it is known by two that few people write;
    what people wrote goes through `by_hand` before.
    """
    recorded = {"ancestor", "checkpoint_every"} <= data.keys()
    return {"memory": 0, "newcomers": 0.0, **data} if recorded else dict(data)


def by_hand(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters as a person wrote them: memory and newcomers left out are left to the default."""
    evolution = data.get("evolution")
    if not isinstance(evolution, Mapping):
        return data
    return {**data, "evolution": {"memory": None, "newcomers": None, **evolution}}


def modernised(data: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as written by any version, in today's names.

    Until 0.2 the section `network` was called `policy`, and the range of returns of one's own world
    stood with the canary. Until 0.3 every record names a range there; the former default says
    nothing, and becomes the gate's. Files and manifests keep their old names.
    """
    new = {
        "network" if name == "policy" and "network" not in data else name: value
        for name, value in data.items()
    }
    if isinstance(new.get("evolution"), Mapping):
        new["evolution"] = modern_evolution(new["evolution"])
    env, gate, canary = (new.get(name) for name in ("env", "gate", "canary"))
    if isinstance(canary, Mapping) and {k: canary.get(k) for k in _OLD_RANGE} == _OLD_RANGE:
        new["canary"] = {k: v for k, v in canary.items() if k not in _OLD_RANGE}
    if not all(isinstance(section, Mapping) for section in (env, gate, canary)):
        return new
    assert env is not None
    assert gate is not None
    assert canary is not None
    ends = {end: canary.get(f"return_{end}") for end in ("low", "high")}
    if "scale" in gate and ":" in str(env.get("id")) and "returns" not in env:
        new["env"] = env if None in ends.values() else {**env, "returns": ends}
    return new
