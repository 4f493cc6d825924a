"""The lines that a notebook starts with do what the docstrings say."""

import doctest

import pytest

import srghn.ghn
import srghn.graph


@pytest.mark.parametrize("package", [srghn.graph, srghn.ghn], ids=lambda p: p.__name__)
def test_examples_in_docstrings(package: object) -> None:
    assert isinstance(package, type(srghn))
    result = doctest.testmod(package)
    assert result.attempted >= 4
    assert result.failed == 0
