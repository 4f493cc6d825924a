"""Names become streams and seeds that no release may change: every lineage rests on them."""

import hashlib

import numpy as np

from srghn import seeding


def test_a_stream_is_philox_under_the_names_digest() -> None:
    key = int.from_bytes(hashlib.sha256(b"7\x1fbirth\x1f3").digest()[:16], "little")
    expected = np.random.Generator(np.random.Philox(key=key))
    found = seeding.stream(7, "birth", 3)
    assert found.random(9).tobytes() == expected.random(9).tobytes()
    assert found.integers(0, 2**63, 9).tobytes() == expected.integers(0, 2**63, 9).tobytes()


def test_streams_of_one_name_are_alike_and_of_two_names_are_not() -> None:
    first, again = seeding.stream(7, "ties", 3), seeding.stream(7, "ties", 3)
    first.random(5)  # moves no other stream on
    assert again.random() == seeding.stream(7, "ties", 3).random()
    assert again.random() != seeding.stream(7, "ties", 4).random()


def test_seeds_are_named_one_by_one() -> None:
    expected = [seeding.seed(7, "episode", 3, i) % 2**31 for i in range(12)]
    assert seeding.seeds(7, "episode", 12, 3).tolist() == expected


def test_draws_made_ahead_are_those_made_one_by_one() -> None:
    asked = []

    @seeding.ahead
    def draw(generation: int, seed: int) -> np.ndarray:
        asked.append(generation)
        return seeding.seeds(seed, "ahead", 3, generation)

    draw(70, 7)[:] = 0  # whoever gets them may change them
    for generation in (70, 127, 64, 3):
        assert draw(generation, 7).tolist() == seeding.seeds(7, "ahead", 3, generation).tolist()
    assert sorted(asked) == list(range(128))
