"""Who acts on this machine, as the ledger names them."""

from __future__ import annotations

import getpass


def actor() -> str:
    """The user of this machine; `cli:unknown` where the machine does not say."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli:unknown"
