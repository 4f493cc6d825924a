"""The quick way takes what the strict way takes, to the bit, and leaves all else to it."""

from __future__ import annotations

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batches import quick_batch, quick_rows
from serving.schemas import BadRequest
from serving.tensors import InferRequest, batch, one, plain, read, split

numbers = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40)
)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=9))
def test_numbers_are_those_of_the_strict_way(rows: list[list[float]]) -> None:
    for indent in (None, 1):
        body = json.dumps({"observations": rows}, indent=indent).encode()
        found = quick_batch(body, 3, 9)
        assert found is not None
        assert found.dtype == np.float32
        assert np.array_equal(found, np.array(rows, np.float64).astype(np.float32))
        flat = json.dumps([value for row in rows for value in row], indent=indent).encode()
        for data in (json.dumps(rows, indent=indent).encode(), flat):
            assert np.array_equal(quick_rows(data, len(rows), 3), found)


@pytest.mark.parametrize(
    "body",
    [
        b'{"observations":[[1,2,3],[4]]}',
        b'{"observations":[]}',
        b'{"observations":[[1,true]]}',
        b'{"observations":[[1,null]]}',
        b'{"observations":[[1,"2"]]}',
        b'{"observations":[[1,{}]]}',
        b'{"observation":[[1,2]]}',
        b'{"obseeervations":[[1,2]]}',
        b'{"observations":[[1,2]],"observations":[[1,2]]}',
        b'{"observations":[[1e39,2]]}',
        b'{"observations":[[1e999,2]]}',
        b'{"observations":[[NaN,2]]}',
        b'{"observations":[[,2]]}',
        b'{"observations":[[+1,2]]}',
        b'{"observations":[[01,2]]}',
        b'{"observations":[[1 2,2]]}',
        b'{"observations":[[1,2],[3,4],[5,6],[7,8]]}',
        b'{"observations":[[1,2]]} []',
        b'"observations" {:[[1,2]]}',
        b"",
    ],
)
def test_what_is_odd_is_left_to_the_strict_way(body: bytes) -> None:
    assert quick_batch(body, 2, 3) is None


@pytest.mark.parametrize("data", [b"[1,2,3]", b"[[1,2,3],[4]]", b"[]", b"[1,2,3,x]", b"1,2,3,4"])
def test_rows_that_are_none_are_left_to_the_strict_way(data: bytes) -> None:
    assert quick_rows(data, 2, 2) is None


def test_a_short_text_that_claims_a_large_shape_costs_nothing() -> None:
    assert quick_rows(b"[1]", 10**9, 10**9) is None


def test_threads_do_not_share_a_parser() -> None:
    bodies = [json.dumps({"observations": [[k, k + 1]] * 50}).encode() for k in range(8)]

    def read(k: int) -> float:
        found = [quick_batch(bodies[k], 2, 64) for _ in range(50)]
        return float(np.mean([rows[0, 0] for rows in found if rows is not None]))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(8))) == list(range(8))


def request(
    data: object, size: int, binary: bytes = b"", count: int = 1
) -> tuple[InferRequest, bytes]:
    tensor: dict[str, object] = {"name": "obs", "shape": [count, size], "datatype": "FP32"}
    if binary:
        tensor["parameters"] = {"binary_data_size": len(binary)}
    else:
        tensor["data"] = data
    head = json.dumps({"inputs": [tensor]}).encode()
    head, binary = split(head + binary, str(len(head)))
    return read(head), binary


def alone(said: InferRequest, binary: bytes, size: int) -> list[float] | None:
    tensor = plain(said, size, 8)
    assert tensor is not None
    return one(tensor, binary, size)


@given(st.lists(numbers, min_size=3, max_size=3))
def test_one_observation_is_that_of_a_batch(row: list[float]) -> None:
    packed = np.array(row, "<f4").tobytes()
    for said, binary in (request(row, 3), request([], 3, packed)):
        found = alone(said, binary, 3)
        assert found is not None
        assert np.array_equal(np.array([found], np.float32), batch(said, binary, 3, 8))


@pytest.mark.parametrize(
    "data", [[1, 2], [[1, 2, 3]], [1, 2, True], [1, 2, "3"], [1, 2, None], [1, 2, 1e39], 3, None]
)
def test_one_odd_observation_is_left_to_the_batch(data: object) -> None:
    assert alone(*request(data, 3), 3) is None


def test_one_binary_observation_is_finite_and_whole() -> None:
    for values in ([1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, np.nan, 2.0], [np.inf, 1.0, 2.0]):
        assert alone(*request([], 3, np.array(values, "<f4").tobytes()), 3) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_binary_batch_has_finite_numbers(value: float) -> None:
    values = np.full((20, 3), 3e38, "<f4")  # whose squares are infinite
    said, binary = request([], 3, values.tobytes(), 20)
    assert (batch(said, binary, 3, 20) == values).all()
    values[10, 1] = value
    with pytest.raises(BadRequest, match="finite"):
        batch(said, values.tobytes(), 3, 20)


def test_a_request_is_plain_if_nothing_of_it_may_have_to_be_refused() -> None:
    tensor = {"name": "obs", "shape": [2, 3], "datatype": "FP32", "data": [0] * 6}
    output = {"name": "action", "parameters": {"binary_data": True}}
    for more in ({}, {"outputs": []}, {"outputs": [output]}, {"outputs": [{"name": "action"}]}):
        said = read(json.dumps({"inputs": [tensor], **more}).encode())
        assert plain(said, 3, 8) is said.inputs[0]
        assert plain(said, 3, 1) is plain(said, 4, 8) is None
    odd: list[dict[str, object]] = [
        {"outputs": [{"name": "value"}]},
        {"outputs": [{"name": "action", "parameters": {"classification": 1}}]},
        {"inputs": [{**tensor, "parameters": {"shared_memory_region": "r"}}]},
        {"inputs": [{**tensor, "datatype": "FP64"}]},
        {"inputs": [{**tensor, "shape": [6]}]},
        {"inputs": [tensor, tensor]},
        {"inputs": []},
    ]
    for body in odd:
        said = read(json.dumps({"inputs": [tensor], **body}).encode())
        assert plain(said, 3, 8) is None


def test_a_long_list_is_counted_before_it_is_decoded() -> None:
    """Decoded, a zero of two bytes takes forty."""
    zeros = b"0," * 500_000 + b"0"
    head = b'{"inputs":[{"name":"obs","shape":[1,4],"datatype":"FP32","data":['
    said, binary = read(head + zeros + b"]}]}"), b""
    tracemalloc.start()
    try:
        assert alone(said, binary, 4) is None
        with pytest.raises(BadRequest, match="4 numbers"):
            batch(said, binary, 4, 8)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(zeros)
    finally:
        tracemalloc.stop()
