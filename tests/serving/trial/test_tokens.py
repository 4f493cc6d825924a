"""Tokens of episodes: what is sealed comes back, what is changed does not, and arms look alike."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.trial.tokens import BadToken, Episode, Sealer

EPISODE = Episode("episode-1", "policy", 3, 1, 17, 5, 2, 1_700_000_000.25, 4)
NUMBERS = st.integers(0, 2**31)


@given(
    name=st.text(alphabet="abcXYZ019._:@=+-", min_size=1, max_size=200),
    policy=st.text(min_size=1, max_size=30),
    start=st.none() | NUMBERS,
    trial=st.none() | NUMBERS,
    version=NUMBERS,
    steps=st.integers(0, 2**32 - 2),
    moved=st.booleans(),
    loose=st.booleans(),
)
def test_another_process_opens_what_one_sealed(
    name: str,
    policy: str,
    start: int | None,
    trial: int | None,
    version: int,
    steps: int,
    moved: bool,
    loose: bool,
) -> None:
    episode = Episode(name, policy, version, 0, start, trial, 7, 1e9, steps, moved, loose)
    found = Sealer(b"s" * 32).open(Sealer(b"s" * 32).seal(episode))
    assert found == episode
    assert found.evidence is (start is not None and not moved and not loose)


def test_no_changed_cut_or_foreign_token_is_opened() -> None:
    sealer = Sealer(b"s" * 32)
    token = sealer.seal(EPISODE)
    for place, letter in enumerate(token):
        with pytest.raises(BadToken):
            sealer.open(token[:place] + chr(ord(letter) ^ 1) + token[place + 1 :])
    for wrong in ("", "?", "é", "é" * 300, "\ud800" * 300, token[:-1], token + "0", "A" * 5000):
        with pytest.raises(BadToken):
            sealer.open(wrong)
    with pytest.raises(BadToken, match="not sealed here"):
        Sealer(b"t" * 32).open(sealer.seal(EPISODE))


def test_the_tail_of_one_token_does_not_fit_another() -> None:
    sealer = Sealer(b"s" * 32)
    one, other = sealer.seal(EPISODE), sealer.seal(EPISODE.but(steps=900))
    with pytest.raises(BadToken, match="not sealed here"):
        sealer.open(one[:-40] + other[-40:])


def test_the_sealed_part_stays_from_step_to_step_and_any_process_opens_each_token() -> None:
    sealer, other = Sealer(b"s" * 32), Sealer(b"s" * 32)
    episode = EPISODE.kept(sealer.seal(EPISODE))
    tokens = []
    for _ in range(300):
        episode = episode.stepped()
        tokens.append(sealer.step(episode))
    assert len({token[:-40] for token in tokens}) == 1
    assert len(set(tokens)) == 300
    assert [other.open(token).steps for token in tokens] == list(range(5, 305))
    assert other.open(tokens[-1]) == EPISODE.but(steps=304)


def test_other_values_are_never_behind_an_old_sealed_part() -> None:
    sealer = Sealer(b"s" * 32)
    episode = EPISODE.kept(sealer.seal(EPISODE))
    assert episode.sealed
    assert not episode.but(moved=True).sealed


def test_a_token_tells_nothing_of_the_arm() -> None:
    """Same length on both arms, no readable part, and no token twice."""
    sealer = Sealer(b"s" * 32)
    other = Episode("episode-1", "policy", 70_000, 0, 17, 5, 2, 1_700_000_000.25, 4)
    tokens = {sealer.seal(episode) for episode in (EPISODE, other) for _ in range(100)}
    assert len(tokens) == 200
    assert len({len(token) for token in tokens}) == 1
    assert all(b"episode" not in base64.b64decode(token[:-40]) for token in tokens)


def test_memory_is_kept_and_its_room_hides_its_size() -> None:
    sealer = Sealer(b"s" * 32)
    small = Episode("e", "policy", 1, 0, 1, 5, 2, 1.0, 0, memory=b"12345678")
    none = Episode("e", "policy", 1, 0, 1, 5, 2, 1.0, 0)
    tokens = [sealer.seal(episode, room=32) for episode in (small, none)]
    assert len(tokens[0]) == len(tokens[1])
    assert [sealer.open(token).memory for token in tokens] == [b"12345678", b""]


@pytest.mark.parametrize("size", [65_534, 65_535, 65_536, 300_000])
def test_memory_of_any_size_is_kept_and_looks_like_none(size: int) -> None:
    """Two frames of 84 by 84 in three colours are 84,672 bytes."""
    sealer = Sealer(b"s" * 32)
    large = EPISODE.but(memory=bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    tokens = [sealer.seal(episode, room=size) for episode in (large, EPISODE)]
    assert sealer.open(tokens[0]).memory == large.memory
    assert sealer.open(tokens[1]).memory == b""
    assert len(tokens[0]) == len(tokens[1])


def test_many_foreign_salts_leave_the_own_key() -> None:
    sealer = Sealer(b"s" * 32)
    token = sealer.seal(EPISODE)
    for number in range(600):
        foreign = number.to_bytes(16, "little") + bytes(100)
        with pytest.raises(BadToken):
            sealer.open(base64.b64encode(foreign).decode() + "0" * 40)
    assert sealer.open(token) == EPISODE
    assert len(sealer._keys) <= 256
