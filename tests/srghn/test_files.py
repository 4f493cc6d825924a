import math
import os
from pathlib import Path

import pytest

from srghn.files import atomic_write, canonical_json, seal, sha256_bytes, sha256_file, sweep, unseal


def test_write_replaces_the_whole_file_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    atomic_write(path, b"old, and longer than the new")
    atomic_write(path, "néw")
    assert path.read_bytes() == "néw".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    atomic_write(path, b"old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_sweep_removes_only_what_was_left_aside(tmp_path: Path) -> None:
    (tmp_path / ".file.bin.abc.tmp").write_bytes(b"half")
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / ".folder.tmp" / "file.bin").write_bytes(b"half")
    (tmp_path / "file.tmp").write_bytes(b"a user's own")
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.tmp"]


def test_digests_of_bytes_and_of_a_file_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"abc")
    assert sha256_bytes(b"abc").startswith("ba7816bf")


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": math.nan})


def test_a_seal_holds_until_any_byte_is_changed() -> None:
    data = seal({"b": 1, "a": {"digest": "inner"}})
    assert unseal(data) == {"b": 1, "a": {"digest": "inner"}}
    for place in range(len(data)):
        with pytest.raises(ValueError, match=r"digest|JSON|Expecting|utf-8|column|control"):
            unseal(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ValueError, match="no digest"):
        unseal(b"[1]")
