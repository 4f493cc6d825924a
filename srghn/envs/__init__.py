"""Environments with a version: description, switches, and a fingerprint to recognise them.

Names are imported when they are first used, so that reading a pinned version or an interface does
not import Gymnasium.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srghn.envs.cells import default_cells
    from srghn.envs.interface import Interface
    from srghn.envs.perturb import Perturbation, kinds, parse
    from srghn.envs.pinning import diff, pin, verify
    from srghn.envs.registry import WorldSpec, find, registered
    from srghn.envs.version import EnvVersion

__all__ = [
    "EnvVersion",
    "Interface",
    "Perturbation",
    "WorldSpec",
    "default_cells",
    "diff",
    "find",
    "kinds",
    "parse",
    "pin",
    "registered",
    "verify",
]

_HOME = {
    "Interface": "interface",
    "Perturbation": "perturb",
    "default_cells": "cells",
    "kinds": "perturb",
    "parse": "perturb",
    "diff": "pinning",
    "pin": "pinning",
    "verify": "pinning",
    "WorldSpec": "registry",
    "find": "registry",
    "registered": "registry",
    "EnvVersion": "version",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
