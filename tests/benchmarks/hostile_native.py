"""Bodies in an environment's own form, for `hostile`: a Dict of an image, choices and a Tuple."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice

from tests.serving.test_native_observations import jsonable, samples

BATCH, ACT, INFER = "/v1/act/batch", "/v1/act", "/v2/models/policy/infer"
START, END = b'{"observations": [', b"]}"


def fill(start: bytes, part: bytes, end: bytes, length: int) -> bytes:
    """A body of about `length` bytes: the part again and again."""
    count = max(1, (length - len(start) - len(end)) // len(part))
    return start + (part * count)[:-1] + end


def one() -> dict[str, object]:
    return jsonable(samples(1)[0])


def native_valid(length: int) -> bytes:
    """As many observations as fit, 4096 at most, and then blanks."""
    rows = [json.dumps(jsonable(row)).encode() for row in samples(16)]
    count = min(4096, length // (max(map(len, rows)) + 1) - 1)
    body = START + b",".join(islice(cycle(rows), count))
    return body + b" " * max(0, length - len(body) - 2) + END


def changed(**change: object) -> bytes:
    return json.dumps({**one(), **change}).encode() + b","


def native_kinds(length: int) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Name, path, body and headers."""
    encoded = {"b64": "AAAA", "shape": [2, 3, 1], "dtype": "int16"}
    for name, part in (
        ("nulls", b"null,"),
        ("zeros", b"0,"),
        ("empty objects", b"{},"),
        ("objects of one unknown key", b'{"a":1},'),
        ("last of all: a choice out of range", changed(goal=9)),
        ("an image of nulls", changed(camera=[[[None]] * 3] * 2)),
        ("an image too deep", changed(camera=[[[[[[[0]]]]]]])),
        ("an image of other bytes", changed(camera=encoded)),
        ("an image of another type", changed(camera={**encoded, "dtype": "object"})),
        ("an image of a vast shape", changed(camera={**encoded, "shape": [2**40, 2**40]})),
        ("strings", changed(pair=["x", "y"])),
        ("numbers out of range", changed(pair=[[0.0, 1e300], 0])),
        ("flat vectors too short", b"[0,0,0,0],"),
    ):
        yield name, BATCH, fill(START, part, END, length), {}
    good = json.dumps(one()).encode() + b","
    bad = good * ((length - 200) // len(good) - 1) + changed(goal=9)
    yield "the last one is wrong", BATCH, START + bad[:-1] + END, {}
    yield "too many", BATCH, fill(START, b"{},", END, length), {}
    keys = b",".join(b'"k%d":0' % n for n in range(length // 11))
    yield "one of many keys", BATCH, START + b"{" + keys + b"}" + END, {}
    yield "one key again and again", BATCH, START + fill(b"{", b'"goal":1,', b"}", length) + END, {}
    yield "open objects", BATCH, START + b'{"goal":' * (length // 8), {}
    yield (
        "stacked: nulls",
        BATCH,
        fill(b'{"observations": {"goal": [', b"null,", b"]}}", length),
        {},
    )
    yield "stacked: ragged", BATCH, stacked(b"[[[1]],[[1],[1]]],", length), {}
    yield "stacked: too many", BATCH, stacked(b"[[[1],[1],[1]],[[1],[1],[1]]],", length), {}
    yield "stacked: strings", BATCH, stacked(b'"a",', length), {}
    forms = b",".join(b'"%016x":[]' % n for n in range(length // 22))
    yield "many forms", BATCH, b'{"forms": {' + forms + b"}}", {}
    yield "a form of nulls", BATCH, fill(b'{"forms": {"1": [', b"null,", b"]}}", length), {}
    yield "act: nulls", ACT, fill(b'{"observation": {"camera": [', b"null,", b"]}}", length), {}
    yield "act: many keys", ACT, b'{"observation": {' + keys + b"}}", {}
    yield "act: many forms", ACT, b'{"observations": {' + forms + b"}}", {}
    image = b'{"observation": {"camera": {"dtype": "int16", "shape": [2, 3, 1], "b64": "'
    yield "act: a long image", ACT, image + b"A" * (length - len(image) - 5) + b'"}}}', {}
    part = b'{"inputs":[{"name":"goal","shape":[1],"datatype":"INT64","data":['
    yield "v2: nulls in a part", INFER, fill(part, b"null,", b"]}]}", length), {}
    yield "v2: zeros in a part", INFER, fill(part, b"0,", b"]}]}", length), {}
    tensor = b'{"name":"goal","shape":[1],"datatype":"INT64","data":[1]},'
    yield "v2: one part again and again", INFER, fill(b'{"inputs":[', tensor, b"]}", length), {}
    formed = b'{"name":"goal@1","shape":[1],"datatype":"INT64","data":[1]},'
    yield "v2: many forms", INFER, fill(b'{"inputs":[', formed, b"]}", length), {}


def stacked(part: bytes, length: int) -> bytes:
    return fill(b'{"observations": {"camera": [', part, b"]}}", length)
