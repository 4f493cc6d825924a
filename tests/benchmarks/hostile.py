"""What bad bodies cost, as multiples of a valid one of the same length: CPU and memory.

    python -m tests.benchmarks.hostile [--megabytes 4] [--native]

Starts a server of its own, prints a table, and exits 1 if a kind costs more than 20 times a valid
body's CPU, or more memory than 20 times its length. With --native the policy observes a Dict, and
bodies are in its own form.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.lab.bench.http.load import cpu_seconds
from tests.benchmarks.hostile_native import fill, native_kinds, native_valid
from tests.serving.conftest import Home, maker, run_server
from tests.serving.test_native_observations import SIZE, interface

MOST = 20.0
BATCH, ACT, INFER = "/v1/act/batch", "/v1/act", "/v2/models/policy/infer"
OUTCOME = "/v1/episodes/e/outcome"


def valid(length: int) -> bytes:
    """A whole batch of 4096 observations whose numbers are as long as it takes."""
    digits = max(1, min(17, length // (4096 * 4) - 4))
    number = b"0." + b"1" * digits
    row = b"[" + b",".join([number] * 4) + b"]"
    body = b'{"observations": [' + b",".join([row] * 4096)
    return body + b" " * max(0, length - len(body) - 2) + b"]}"


def different(length: int) -> bytes:
    """Keys that are all different, but the last, which is the same as the one before it."""
    keys = b",".join(b'"k%07d":0' % n for n in range((length - 12) // 13))
    return keys + keys[keys.rfind(b",") :]


def kinds(length: int) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Name, path, body and headers."""
    start, end = b'{"observations": [', b"]}"
    for name, part in (
        ("nulls", b"null,"),
        ("zeros", b"0,"),
        ("empty rows", b"[],"),
        ("rows of nulls", b"[null,null,null,null],"),
        ("rows of one", b"[0],"),
        ("rows of strings", b'["a","b","c","d"],'),
        ("rows of true", b"[true,true,true,true],"),
        ("objects", b'{"a":1},'),
        ("too many rows", b"[0,0,0,0],"),
        ("numbers out of range", b"[1e999,0,0,0],"),
        ("NaN", b"[NaN,0,0,0],"),
    ):
        yield name, BATCH, fill(start, part, end, length), {}
    yield "open brackets", BATCH, b"[" * length, {}
    yield "open objects", BATCH, b'{"a":' * (length // 5), {}
    yield "one long number", BATCH, start + b"[" + b"1" * length + b"]" + end, {}
    yield "one long string", BATCH, b'{"observations": "' + b"x" * length + b'"}', {}
    yield "escapes", BATCH, b'{"observations": "' + rb"\u00e9" * (length // 6) + b'"}', {}
    keys = b",".join(b'"k%d":0' % n for n in range(length // 10))
    yield "many keys", BATCH, b"{" + keys + b"}", {}
    yield "one key again and again", BATCH, fill(b"{", b'"observations":[],', b"}", length), {}
    twice = b",".join(b'"k%07d":0' % (n // 2 * 2) for n in range(length // 12))
    yield "keys of which each is there twice", BATCH, b"{" + twice + b"}", {}
    last = different(length - 30)
    yield "different keys, the last one twice", BATCH, b'{"observations":[],' + last + b"}", {}
    yield "v2: the same", INFER, b'{"inputs":[],"parameters":{' + last + b"}}", {}
    head = b'{"inputs":[],' + last + b"}"
    split = {"Inference-Header-Content-Length": str(len(head))}
    yield "v2: the same, before binary data", INFER, head, split
    yield "no UTF-8", BATCH, b"\xff" * length, {}
    yield "no JSON", BATCH, b"x" * length, {}
    tensor = b'{"inputs":[{"name":"obs","shape":[1,4],"datatype":"FP32","data":['
    yield "v2: zeros", INFER, fill(tensor, b"0,", b"]}]}", length), {}
    yield "v2: nulls", INFER, fill(tensor, b"null,", b"]}]}", length), {}
    yield (
        "v2: parameters",
        INFER,
        fill(b'{"inputs":[],"parameters":{', b'"p":0,', b"}}", length),
        {},
    )
    bomb = gzip.compress(b'{"observations": [' + b" " * (40 * length) + b"]}")
    yield "packed bomb", BATCH, bomb, {"Content-Encoding": "gzip"}
    yield "act: zeros", ACT, fill(b'{"observation": [', b"0,", b"]}", length), {}
    yield "outcome: long token", OUTCOME, b'{"token": "' + b"A" * length + b'"}', {}


def measure(
    address: tuple[str, int], pid: int, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, float, float]:
    """Status, CPU milliseconds of one request, and MiB that the process grew by at its peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, count = _memory(pid, "VmRSS"), 0
    used, begun, status = cpu_seconds([pid]), time.monotonic(), 0
    while count < 3 or (cpu_seconds([pid]) - used < 0.25 and time.monotonic() - begun < 3):
        connection = http.client.HTTPConnection(*address, timeout=120)
        try:
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):
            status = 413  # refused and closed while the body was still being sent
        connection.close()
        count += 1
    spent = 1e3 * (cpu_seconds([pid]) - used) / count
    return status, spent, (_memory(pid, "VmHWM") - before) / 1024


def _memory(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


def table(length: int, native: bool = False) -> list[dict[str, object]]:
    """A row for each kind of body, of a server whose limit is that length."""
    good, bad = (native_valid, native_kinds) if native else (valid, kinds)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home", maker(Path(folder)))
        home.first(**{"more": SIZE - 4, "interface": interface()} if native else {})
        limits = {"SRGHN_LIMIT_BODY_BYTES": str(length + 100)}
        with run_server(home, environment=limits) as (url, process):
            host, port = url.removeprefix("http://").split(":")
            address = host, int(port)
            time.sleep(2)
            body = good(length)
            for _ in range(3):  # warm
                status, cpu, memory = measure(address, process.pid, BATCH, body, {})
            assert status == 200, status
            rows.append(_row("valid", status, cpu, cpu, memory, length))
            for name, path, body, headers in bad(length):
                status, spent, memory = measure(address, process.pid, path, body, headers)
                rows.append(_row(name, status, spent, cpu, memory, length))
        home.ledger.close()
    return rows


def _row(
    name: str, status: int, spent: float, valid: float, memory: float, length: int
) -> dict[str, object]:
    return {
        "kind": name,
        "status": status,
        "cpu_ms": round(spent, 2),
        "cpu_of_valid": round(spent / valid, 2),
        "memory_of_length": round(memory * 2**20 / length, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=0.4)
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = table(int(options.megabytes * 1e6), options.native)
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        heads = ("kind", "status", "CPU ms", "CPU, of valid", "memory, of length")
        sys.stdout.write("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|\n")
        for row in rows:
            sys.stdout.write("| " + " | ".join(str(value) for value in row.values()) + " |\n")
    bad = [row for row in rows[1:] if max(row["cpu_of_valid"], row["memory_of_length"]) > MOST]  # type: ignore[type-var, operator]
    for row in bad:
        sys.stderr.write(f"too dear: {row}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
