"""From a run to a candidate: choose a finalist, freeze it, load it, play it.

Names are imported when they are first used: the server reads candidates and has no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srghn.candidates.candidate import Candidate, OnnxPolicy, load_candidate
    from srghn.candidates.choose import Choice, choose_finalist
    from srghn.candidates.founder import founder_of
    from srghn.candidates.individual import freeze_finalist, freeze_founder
    from srghn.candidates.play import observe, play_candidate

__all__ = [
    "Candidate",
    "Choice",
    "OnnxPolicy",
    "choose_finalist",
    "founder_of",
    "freeze_finalist",
    "freeze_founder",
    "load_candidate",
    "observe",
    "play_candidate",
]

_HOME = {
    "Candidate": "candidate",
    "OnnxPolicy": "candidate",
    "load_candidate": "candidate",
    "Choice": "choose",
    "choose_finalist": "choose",
    "freeze_finalist": "individual",
    "founder_of": "founder",
    "freeze_founder": "individual",
    "observe": "play",
    "play_candidate": "play",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
