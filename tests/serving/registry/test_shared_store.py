"""One artefact store for two homes: a mounted folder, or an S3-compatible server on loopback."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.registry import reports
from serving.registry.artefacts import ArtefactStore
from serving.registry.remote import ObjectMissing, Remote, StoreAway
from serving.settings import Settings, load_settings
from srghn.candidates.candidate import FILES, MANIFEST, Candidate
from srghn.errors import ArtefactError, ConfigError
from srghn.files import canonical_json, sha256_bytes
from tests.s3 import BUCKET, S3, s3

__all__ = ["s3"]
Make = Callable[..., Candidate]
_PREFIXES = itertools.count()


class Shared:
    """A store, the homes of two hosts, and a way to its objects past everything."""

    def __init__(self, folder: Path, server: S3 | None) -> None:
        self.folder, self.server = folder, server
        (folder / "shared").mkdir()
        self.prefix = f"prefix/{next(_PREFIXES)}"
        self.url = f"s3://{BUCKET}/{self.prefix}" if server else f"file://{folder}/shared"
        self.here, self.there = self.host("here"), self.host("there")

    def host(self, name: str, patience: float = 0.0) -> ArtefactStore:
        return ArtefactStore(self.folder / name / "artefacts", Remote(self.url, patience))

    def write(self, name: str, data: bytes) -> None:
        if self.server is None:
            (self.folder / "shared" / name).write_bytes(data)
        else:
            self.server.put(f"{self.prefix}/{name}", data)

    def delete(self, name: str) -> None:
        if self.server is None:
            (self.folder / "shared" / name).unlink()
        else:
            self.server.delete(f"{self.prefix}/{name}")

    def go(self) -> None:
        """The store goes away."""
        if self.server is None:
            (self.folder / "shared").rename(self.folder / "unmounted")
        else:
            self.server.stop()

    def come(self) -> None:
        if self.server is None:
            (self.folder / "unmounted").rename(self.folder / "shared")
        else:
            self.server.start()


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.services)])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    server = request.getfixturevalue("s3") if request.param == "s3" else None
    return Shared(tmp_path, server)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_host_gets_the_same_bytes(shared: Shared, make_candidate: Make) -> None:
    digest = shared.here.put(make_candidate().path)
    assert not shared.there.has_here(digest)
    assert shared.there.has(digest)
    found = shared.there.load(digest)
    assert found.digest == digest
    assert files(found.path) == files(shared.here.path(digest))
    assert [path.name for path in shared.there.folder.iterdir()] == [digest]
    assert not shared.there.has("0" * 64)


@pytest.mark.parametrize("name", [MANIFEST, "policy.onnx"])
def test_a_changed_object_is_named_and_not_used(
    shared: Shared, make_candidate: Make, name: str
) -> None:
    digest = shared.here.put(make_candidate().path)
    shared.write(f"artefacts/{digest}/{name}", b"{}")
    with pytest.raises(ArtefactError, match=rf"{digest}/{name} was changed: expected sha256"):
        shared.there.load(digest)
    assert not shared.there.has_here(digest)
    shared.here.push(digest)  # the home that has it mends the store
    assert shared.there.load(digest).digest == digest


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_missing_object_is_named(shared: Shared, make_candidate: Make, name: str) -> None:
    digest = shared.here.put(make_candidate().path)
    shared.delete(f"artefacts/{digest}/{name}")
    with pytest.raises(ObjectMissing, match=rf"{digest}/{name} is missing; .*srghn store push"):
        shared.there.load(digest)
    assert not shared.there.has_here(digest)


def test_a_damaged_copy_is_fetched_again_and_said(
    shared: Shared, make_candidate: Make, caplog: pytest.LogCaptureFixture
) -> None:
    digest = shared.here.put(make_candidate().path)
    file = shared.there.path(digest) / "policy.onnx"
    file.write_bytes(b"junk")
    with caplog.at_level(logging.WARNING):
        assert shared.there.load(digest).policy_bytes() != b"junk"
    assert "policy.onnx was changed" in caplog.text
    assert "fetched again" in caplog.text
    assert [path.name for path in shared.there.folder.iterdir()] == [digest]


def test_while_it_is_away_what_is_here_is_used(shared: Shared, make_candidate: Make) -> None:
    first = shared.here.put(make_candidate().path)
    kept = shared.there.load(first).digest
    other = make_candidate(bias=2.0)
    shared.go()
    try:
        assert shared.there.load(kept).digest == first
        with pytest.raises(StoreAway, match=r"does not answer: .*check SRGHN_STORE_URL") as said:
            shared.there.load(other.digest)
        assert "\n" not in str(said.value)
        with pytest.raises(StoreAway):
            shared.here.put(other.path)
        with pytest.raises(StoreAway, match=r"tried for 0\.3 s"):
            shared.host("patient", 0.3).load(first)
    finally:
        shared.come()
    assert shared.here.put(other.path) == other.digest
    assert shared.there.load(other.digest).digest == other.digest


def report_in(store: ArtefactStore) -> dict[str, Any]:
    """A report of two files in a home; returns the verdict that names them."""
    page, numbers = b"<p>better</p>", b"{}"
    said = {
        "report_digest": sha256_bytes(page),
        "evidence": {"report.json": sha256_bytes(numbers)},
    }
    folder = reports.folder(store.folder.parent, str(said["report_digest"]))
    folder.mkdir(parents=True)
    (folder / "report.html").write_bytes(page)
    (folder / "report.json").write_bytes(numbers)
    (folder / "verdict.json").write_bytes(canonical_json(said))
    return said


def test_a_report_goes_with_its_verdict(shared: Shared) -> None:
    said = report_in(shared.here)
    shared.here.push_report(said["report_digest"])
    folder = shared.there.report(said)
    assert reports.problem(folder, said) is None
    assert files(folder) == files(shared.here.report(said))
    (folder / "report.html").write_bytes(b"<p>worse</p>")
    assert reports.problem(shared.there.report(said), said) is None
    shutil.rmtree(folder)
    shared.write(f"reports/{said['report_digest']}/report.html", b"<p>worse</p>")
    with pytest.raises(ArtefactError, match=r"report\.html was changed"):
        shared.there.report(said)
    assert not folder.exists()


def test_a_report_from_before_the_store_is_read_where_it_lies(shared: Shared) -> None:
    said = report_in(shared.here)
    (folder,) = (shared.here.folder.parent / "reports").iterdir()
    (folder / "report.json").unlink()
    assert shared.here.report(said) == folder  # whoever reads a file checks it
    with pytest.raises(ObjectMissing):
        shared.there.report(said)


def test_a_world_is_fetched_by_its_fingerprint(shared: Shared) -> None:
    path = shared.here.folder.parent / "envs" / "abc.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    shared.here.push_world("abc")
    assert shared.there.world("abc").read_bytes() == b"{}"


def test_a_bucket_that_is_not_there_and_credentials_that_are_refused(s3: S3) -> None:
    with pytest.raises(StoreAway, match="its bucket does not exist"):
        Remote("s3://elsewhere/a").put("x", b"")
    with pytest.raises(ConfigError, match="Protocol not known"):
        Remote("gopher://elsewhere/a").put("x", b"")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/a", "must hold no credentials"),
        ("s3://bucket/a?secret=x", "must hold no credentials"),
        ("bucket/a", "must be like s3://BUCKET/PREFIX"),
        ("file://relative/folder", "must be like"),
        ("s3:///a", "must be like"),
    ],
)
def test_a_url_that_is_no_store_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        load_settings(store_url=url)
    assert "secret" not in str(refused.value)


def test_the_default_is_the_home_alone() -> None:
    from serving.registry.artefacts import store_of

    assert store_of(Settings().resolved()).remote is None
    shared = Settings(store_url="file:///mnt/shared/").resolved()
    assert shared.store_url == "file:///mnt/shared"
    assert store_of(shared).remote is not None
