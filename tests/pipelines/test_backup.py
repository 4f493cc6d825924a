"""`srghn backup` and `srghn restore`, as an operator uses them after a disk has died."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.services.doctor import Finding, examine
from serving.registry.ledger import Ledger
from serving.registry.witness import Witness
from serving.settings import Settings
from serving.tokens import Tokens
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
    [aside] = home.settings.home.glob("ledger.db.before-*Z")
    assert said == {
        "events": len(events),
        "champion": None,
        "kept": str(aside),
        "undone": None,  # nobody can read what the disk left
        "without_files": [],
    }
    approved = srghn_here("approve", "1", "--reason", "go on", env=place)
    assert approved.returncode == 0, approved.stderr
    assert aside.read_bytes() == lost
    settings = Settings(home=home.settings.home, witness_key=key if own_key else None).resolved()
    found = {finding.what: finding for finding in examine(settings)}
    assert found["ledger"].ok, found["ledger"]
    assert found["champion"].found.startswith("version 1,")
    assert (home.settings.home / "witness.key").exists() is not own_key
    witness = Witness(settings.home, settings.witness_key)
    assert [entry.kind for entry in witness.entries()].count("restore") == 1


def test_a_restore_says_which_steps_it_undoes_and_what_is_left_to_do(
    srghn_here: Srghn, home: Home, tmp_path: Path
) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    copy = json.loads(srghn_here("backup", "--json", env=place).stdout)["file"]
    assert srghn_here("approve", "1", "--reason", "good", env=place).returncode == 0
    rules = ("deploy", "rules", "set", "two_persons=true", "--reason", "audit")
    assert srghn_here(*rules, env=place).returncode == 0
    later = json.loads(srghn_here("history", "--json", env=place).stdout)[-3:]

    told = srghn_here("restore", copy, "--reason", "by mistake", env=place).stdout.splitlines()
    [kept] = home.settings.home.glob("ledger.db.before-*Z")
    assert told[0].endswith("; no champion")
    assert told[1:] == [
        f"undone: 3 events from {later[0]['at']} on, among them promote (version 1 to CHAMPION), "
        "approve (version 1 to APPROVED); also set_deployment_rules",
        f"the ledger before it is kept: {kept}",
        "now start the servers again, and bring MLflow up to this ledger: srghn sync",
    ]
    assert srghn_here("status", env=place).stdout.splitlines() == [
        f"no champion yet in {home.settings.home}",  # nothing is to be evolved first
        "waiting   version 1: srghn report 1 --open",
    ]
    [folder] = home.settings.artefacts.iterdir()
    folder.rename(tmp_path / folder.name)
    back = ("restore", str(kept), "--reason", "it was right")
    told = srghn_here(*back, env=place).stdout.splitlines()
    assert told[0].endswith("; version 1 is champion")
    assert told[1].endswith(" on, among them restore")
    assert told[3] == (
        f"version 1 is champion and its files are not in {home.settings.artefacts}: copy "
        f"{folder.name} from a backup"
    )
    said = json.loads(srghn_here(*back, "--json", env=place).stdout)
    assert [event["action"] for event in said["undone"]] == ["restore"]
    assert said["without_files"] == [1]


def test_nothing_is_restored_while_a_process_has_the_ledger_open(
    srghn_here: Srghn, home: Home
) -> None:
    """A server would go on with the ledger that was moved aside, and serve its champion."""
    place = {"SRGHN_HOME": str(home.settings.home)}
    copy = json.loads(srghn_here("backup", "--json", env=place).stdout)["file"]
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])\n"
    program += "c.execute('SELECT * FROM events').fetchone(); print('open', flush=True); input()"
    words = [sys.executable, "-c", program, str(home.settings.home / "ledger.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"open\n"
        refused = srghn_here("restore", copy, "--reason", "by mistake", env=place)
        server.communicate(b"\n")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (3, "", 1)
    assert "is in use, so nothing was restored: stop the server" in refused.stderr
    assert list(home.settings.home.glob("ledger.db.before-*")) == []
    done = srghn_here("restore", copy, "--reason", "it is stopped", env=place)
    assert done.returncode == 0, done.stderr


def test_a_lost_key_is_replaced_in_mlflow_too(srghn_here: Srghn, home: Home) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    assert srghn_here("reject", "1", "--reason", "too slow", env=place).returncode == 0
    assert srghn_here("sync", env=place).returncode == 0
    (home.settings.home / "witness.key").unlink()
    refused = srghn_here("sync", "--key-lost", env=place)
    assert refused.returncode == 3
    assert "is signed with key" in refused.stderr  # the witness in the home, which says so first
    (home.settings.home / "witness.jsonl").unlink()

    def mlflow() -> Finding:
        return next(each for each in examine(home.settings) if each.what == "MLflow")

    assert "srghn sync --key-lost" in mlflow().found
    done = srghn_here("sync", "--key-lost", env=place)
    assert done.returncode == 0, done.stderr
    assert mlflow().ok
    ledger = Ledger(home.settings.database_url)
    said = ledger.events()[-1].reason
    assert re.fullmatch("the witness key was lost: [1-9] heads in MLflow are forgotten", said)
    ledger.close()


def test_a_restore_says_that_tokens_are_valid_again(srghn_here: Srghn, home: Home) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    token = srghn_here("token", "add", "eve", "--json", env=place).stdout
    copy = json.loads(srghn_here("backup", "--json", env=place).stdout)["file"]
    back = ("restore", copy, "--reason", "by mistake")
    assert "valid again" not in srghn_here(*back, env=place).stdout
    assert srghn_here("token", "revoke", "eve", env=place).returncode == 0
    told = srghn_here(*back, env=place).stdout.splitlines()
    assert told[-2] == (
        "tokens that were revoked after the backup are valid again: srghn token list, then srghn "
        "token revoke OWNER"
    )
    ledger = Ledger(home.settings.database_url)
    assert Tokens(ledger.database()).find(json.loads(token)["token"]) is not None
    ledger.close()


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
