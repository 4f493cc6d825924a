"""Where something was computed: what must be equal for results to be equal to the bit."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

#: Packages whose version moves the bytes of a genome or of a policy's answer; our own is one.
PACKAGES = ("srghn", "numpy", "numba", "torch")


def platform_note() -> dict[str, str]:
    """System, machine, processor and the packages that move bytes, as a run records them."""
    note = {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    return note | {name: _version(name) for name in PACKAGES}


def _processor() -> str:
    """The processor's model: numerical libraries choose their kernels by it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0].partition(":")[2].strip() if models else platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
