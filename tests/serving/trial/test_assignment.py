"""Arms: as often as the weight says, never moved back, and not to be known without the key."""

from __future__ import annotations

from serving.trial.assignment import arm_of, bucket, exact_weight, trial_key

NAMES = [f"episode-{n}" for n in range(20_000)]


def test_the_share_is_the_weight() -> None:
    key = trial_key(b"s" * 32, "policy", 3)
    for weight in (0.0, 0.05, 0.25, 0.5):
        share = sum(arm_of(key, name, weight) for name in NAMES) / len(NAMES)
        assert abs(share - weight) < 0.012


def test_raising_the_weight_moves_nobody_back() -> None:
    key = trial_key(b"s" * 32, "policy", 3)
    few = {name for name in NAMES if arm_of(key, name, 0.05)}
    many = {name for name in NAMES if arm_of(key, name, 0.5)}
    assert few < many


def test_each_trial_policy_and_secret_draws_anew() -> None:
    keys = [
        trial_key(b"s" * 32, "policy", 3),
        trial_key(b"s" * 32, "policy", 4),
        trial_key(b"s" * 32, "other", 3),
        trial_key(b"t" * 32, "policy", 3),
    ]
    drawn = [[bucket(key, name) for name in NAMES[:50]] for key in keys]
    assert len({tuple(each) for each in drawn}) == 4


def test_the_probability_is_a_whole_number_of_buckets() -> None:
    assert exact_weight(1 / 3) == 0.3333
    assert exact_weight(0.25) == 0.25
