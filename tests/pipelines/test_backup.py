"""`srghn backup` and `srghn restore`, as an operator uses them after a disk has died."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.services.doctor import examine
from serving.registry.ledger import Ledger
from serving.registry.witness import Witness
from serving.settings import Settings
from tests.conftest import Srghn
from tests.pipelines.conftest import Home


@pytest.mark.parametrize("own_key", [False, True])
def test_a_lost_ledger_is_restored(
    srghn_here: Srghn, home: Home, tmp_path: Path, own_key: bool
) -> None:
    file, place = home.settings.home / "ledger.db", {"SRGHN_HOME": str(home.settings.home)}
    key = tmp_path / "elsewhere.key"
    if own_key:
        (home.settings.home / "witness.key").rename(key)
        place["SRGHN_WITNESS_KEY"] = str(key)
    made = srghn_here("backup", "--to", str(tmp_path / "copies"), "--json", env=place)
    copy = json.loads(made.stdout)["file"]
    assert srghn_here("reject", "1", "--reason", "too late", env=place).returncode == 0
    lost = b"this is what a dying disk leaves" * 100
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(lost)
    broken = srghn_here("status", env=place)
    assert (broken.returncode, broken.stderr.count("\n")) == (3, 1)

    done = srghn_here("restore", copy, "--reason", "the disk died", "--json", env=place)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    [version] = json.loads(srghn_here("candidates", "--json", env=place).stdout)
    assert version["state"] == "PASSED"  # as it was when the backup was made
    events = json.loads(srghn_here("history", "--json", env=place).stdout)
    assert (events[-1]["action"], events[-1]["reason"]) == ("restore", "the disk died")
    assert said == {"events": len(events), "champion": None}
    approved = srghn_here("approve", "1", "--reason", "go on", env=place)
    assert approved.returncode == 0, approved.stderr
    [aside] = home.settings.home.glob("ledger.db.before-*Z")
    assert aside.read_bytes() == lost
    settings = Settings(home=home.settings.home, witness_key=key if own_key else None).resolved()
    found = {finding.what: finding for finding in examine(settings)}
    assert found["ledger"].ok, found["ledger"]
    assert found["champion"].found.startswith("version 1,")
    assert (home.settings.home / "witness.key").exists() is not own_key
    witness = Witness(settings.home, settings.witness_key)
    assert [entry.kind for entry in witness.entries()].count("restore") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "there is no backup"), (b"x" * 5000, "file is not a database")],
)
def test_what_is_no_backup_leaves_the_ledger_alone(
    srghn_here: Srghn, home: Home, tmp_path: Path, content: bytes | None, said: str
) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    copy = tmp_path / "copy.db"
    if content is not None:
        copy.write_bytes(content)
    done = srghn_here("restore", str(copy), "--reason", "by mistake", env=place)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert said in done.stderr
    ledger = Ledger(home.settings.database_url)
    assert ledger.verify() == ledger.count()
    ledger.close()
    assert list(home.settings.home.glob("ledger.db.before-*")) == []
