"""Cosines over a tensor's indices: the same function, sampled at any width."""

import numpy as np
import pytest

from srghn.ghn.cosines import cosines


def test_a_matrix_of_as_many_units_as_frequencies_can_be_anything() -> None:
    patterns = cosines((4, 4), 4)
    assert np.linalg.matrix_rank(patterns) == 16
    np.testing.assert_allclose(patterns @ patterns.T, np.eye(16), atol=1e-5)  # 4 inputs: unit gain


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (6, 2, 3), (4, 3, 3, 3)], ids=str)
def test_every_shape_has_patterns(shape: tuple[int, ...]) -> None:
    patterns = cosines(shape, 3)
    assert patterns.shape == (9, int(np.prod(shape)))
    assert len(set(patterns[0])) == 1  # the mean comes first
    assert patterns[0, 0] > 0
    assert np.isfinite(patterns).all()


def test_a_wider_layer_samples_the_same_function_more_finely() -> None:
    """Three units lie where every third one's middle does."""
    coefficients = np.random.default_rng(0).standard_normal(9)
    few, many = (coefficients @ cosines((width, 4), 3) for width in (3, 9))
    np.testing.assert_allclose(few.reshape(3, 4), many.reshape(9, 4)[1::3], rtol=1e-5)


def test_weights_are_smaller_where_a_unit_has_more_inputs() -> None:
    few, many = (cosines((8, width), 4).std(axis=1)[1:] for width in (8, 32))
    np.testing.assert_allclose(few, 2 * many, rtol=0.05)


def test_what_a_small_tensor_cannot_tell_apart_is_left_out() -> None:
    patterns = cosines((2, 4), 4)
    alive = (patterns != 0).any(axis=1)
    assert alive.sum() == 8  # frequencies 0 and 1 over two outputs
    assert np.linalg.matrix_rank(patterns) == 8


def test_of_more_dimensions_the_lowest_frequencies_in_total_are_kept() -> None:
    """Nine of 27: none, three of one, five of the six of two."""
    patterns = cosines((9, 9, 9), 3).reshape(9, 9, 9, 9)
    changes = [int(sum(np.ptp(p, axis=a).max() > 1e-6 for a in range(3))) for p in patterns]
    assert changes[:4] == [0, 1, 1, 1]
    assert all(1 <= count <= 2 for count in changes[4:])
