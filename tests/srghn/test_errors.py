"""Errors meant for a user's eyes: workers send them to the process that tells them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from srghn.envs.fingerprint import Irreproducible
from srghn.errors import SrghnError, TransitionRefused
from srghn.params import Refused


def kinds(base: type[SrghnError]) -> Iterator[type[SrghnError]]:
    """Those of `srghn` that are raised with a message alone."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("srghn.") and "__init__" not in vars(kind):
            yield kind
        yield from kinds(kind)


KINDS = sorted({SrghnError, *kinds(SrghnError)}, key=lambda kind: kind.__name__)


def test_all_of_them_are_here() -> None:
    assert {Irreproducible, Refused, TransitionRefused} < set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_pickles_and_copies_whole(kind: type[SrghnError]) -> None:
    error = kind("what was wrong; what to do")
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    for each in (sent, copy.copy(error), copy.deepcopy(error)):
        assert type(each) is kind
        assert (str(each), each.args, each.exit_code) == (str(error), error.args, error.exit_code)
