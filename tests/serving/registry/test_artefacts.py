"""What is stored is what was put, or an error says which file is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.registry.artefacts import ArtefactStore
from srghn.candidates.candidate import FILES, MANIFEST, Candidate
from srghn.errors import ArtefactError


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


def test_a_candidate_comes_back_whole(
    store: ArtefactStore, make_candidate: Callable[..., Candidate]
) -> None:
    candidate = make_candidate()
    assert store.put(candidate.path) == store.put(candidate.path) == candidate.digest
    stored = store.path(candidate.digest)
    assert stored.name == candidate.digest
    assert {file.name for file in stored.iterdir()} == {MANIFEST, *FILES}
    assert [entry.name for entry in store.folder.iterdir()] == [candidate.digest]


def test_a_candidate_that_is_stored_again_is_young_again(
    store: ArtefactStore, make_candidate: Callable[..., Candidate]
) -> None:
    """A run that was cut off for a month goes on: `srghn prune` must leave what it will cite."""
    candidate = make_candidate()
    stored = store.folder / store.put(candidate.path)
    for file in stored.iterdir():
        os.utime(file, (0, 0))
    store.put(candidate.path)
    assert max(file.stat().st_mtime for file in stored.iterdir()) > time.time() - 60


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_tampering_is_found_when_it_is_asked_for(
    store: ArtefactStore, make_candidate: Callable[..., Candidate], name: str
) -> None:
    digest = store.put(make_candidate().path)
    file = store.path(digest) / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ArtefactError, match=f"{name} was changed"):
        store.path(digest)
    assert store.put(make_candidate().path) == digest  # which mends it
    assert store.load(digest).digest == digest
    assert [entry.name for entry in store.folder.iterdir()] == [digest]


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_candidate_with_a_file_missing_is_not_stored(
    store: ArtefactStore, make_candidate: Callable[..., Candidate], name: str
) -> None:
    source = make_candidate().path
    (source / name).unlink()
    with pytest.raises(ArtefactError, match=name):
        store.put(source)
    assert list(store.folder.iterdir()) == []


def test_a_tampered_candidate_is_not_stored(
    store: ArtefactStore, make_candidate: Callable[..., Candidate]
) -> None:
    source = make_candidate().path
    (source / "policy.onnx").write_bytes(b"junk")
    with pytest.raises(ArtefactError, match=r"policy\.onnx was changed"):
        store.put(source)
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "a" * 63])
def test_a_digest_is_no_path(store: ArtefactStore, digest: str) -> None:
    with pytest.raises(ArtefactError, match="64 hexadecimal digits"):
        store.path(digest)


def test_an_unknown_digest_is_said(store: ArtefactStore) -> None:
    with pytest.raises(ArtefactError, match="is not in"):
        store.path("a" * 64)


def test_a_store_that_cannot_be_written_is_said(
    tmp_path: Path, make_candidate: Callable[..., Candidate]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot store"):
        ArtefactStore(tmp_path / "file" / "artefacts").put(make_candidate().path)
