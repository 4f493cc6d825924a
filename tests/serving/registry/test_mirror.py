"""MLflow's registry shows what the ledger says, sooner or later, and decides nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.registry import backup, published
from serving.registry.faults import LedgerLocked, fault
from serving.registry.ledger import Ledger
from serving.registry.mirror import MODEL, UNDONE, Mirror
from serving.registry.records import Who
from serving.registry.remote import StoreAway
from srghn.errors import LedgerError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    for name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        patch.setenv(name, "true")
    yield f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'deep' / 'mlflow.db'}"
    patch.undo()


def shown(uri: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """(ledger version -> tags, alias -> ledger version) as MLflow has them."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri, uri)
    entries = {
        str(entry.version): entry.tags for entry in client.search_model_versions(f"name='{MODEL}'")
    }
    aliases = client.get_registered_model(MODEL).aliases
    return (
        {tags["srghn.version"]: tags for tags in entries.values()},
        {alias: entries[str(version)]["srghn.version"] for alias, version in aliases.items()},
    )


def test_the_mirror_follows_the_ledger(
    ledger: Ledger, steps: Any, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = steps.first()
    dead = Mirror(ledger, "http://127.0.0.1:1")
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert dead.deliver() == 0
    assert dead.failure is not None
    assert "it stays pending" in caplog.text
    assert len(ledger.pending()) == 5

    mirror = Mirror(ledger, uri)
    assert mirror.deliver() == 5
    assert mirror.failure is None
    assert ledger.pending() == []
    tags, aliases = shown(uri)
    assert aliases == {"champion": str(first)}
    assert tags[str(first)]["srghn.state"] == "CHAMPION"
    assert tags[str(first)]["srghn.digest"] == ledger.version(first).digest
    assert mirror.deliver() == 0

    trial = steps.approved()
    canary = steps.canary(trial)
    mirror.deliver()
    assert shown(uri)[1] == {"champion": str(first), "canary": str(trial)}
    steps.play(canary, 10.0, 490.0, 12)
    ledger.promote(trial, expected_generation=1, who=Who("server", "better"))
    mirror.deliver()
    tags, aliases = shown(uri)
    assert aliases == {"champion": str(trial)}
    assert tags[str(first)]["srghn.state"] == "RETIRED"

    # somebody moves the alias by hand: the ledger is not impressed, and reconciling mends it
    from mlflow.tracking import MlflowClient

    MlflowClient(uri, uri).set_registered_model_alias(MODEL, "champion", "1")
    assert ledger.champion().version == trial  # type: ignore[union-attr]
    before = len(tags)
    assert mirror.reconcile(Who("ann", "somebody moved it")) == ledger.count()
    assert ledger.events()[-1].action == "redeliver"
    tags, aliases = shown(uri)
    assert aliases == {"champion": str(trial)}
    assert len(tags) == before


@pytest.mark.parametrize("fails", ["pending", "ack"])
def test_a_ledger_that_fails_in_a_delivery_makes_the_step_before_no_error(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Whoever reads that nothing was changed rolls back a second time."""
    steps.first()
    mirror = Mirror(ledger, "http://mlflow")
    monkeypatch.setattr(mirror, "_write", lambda versions: None)

    def locked(*_: Any) -> None:
        raise fault("ledger.db", LedgerLocked, "database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, fails, locked)
        assert mirror.deliver() == 0
    assert mirror.failure == (
        "nothing is delivered to MLflow: cannot use the ledger ledger.db: database is locked"
    )
    assert len(ledger.pending()) == 5
    assert (mirror.deliver(), mirror.failure) == (5, None)
    assert ledger.pending() == []


def test_a_sync_that_is_asked_for_during_a_delivery_is_not_lost(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, written = Mirror(ledger, "http://mlflow"), []

    def write(versions: list[int]) -> None:
        written.append(versions)
        if len(written) == 2:
            ledger.redeliver(who=Who("ann", "MLflow was emptied"))

    monkeypatch.setattr(mirror, "_write", write)
    steps.first()
    mirror.deliver()
    steps.register()
    mirror.deliver()
    assert len(ledger.pending()) == ledger.count()
    mirror.deliver()
    assert written == [[1], [2], [1, 2]]
    assert ledger.pending() == []


def test_of_two_deliveries_at_once_the_slower_one_leaves_no_earlier_champion(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the ledger before a promotion that another process has delivered since."""
    slow, quick = Mirror(ledger, "http://mlflow"), Mirror(ledger, "http://mlflow")
    shown: list[int] = []

    def write(versions: list[int]) -> None:
        shown.append(ledger.champion().version)  # type: ignore[union-attr]

    def write_late(versions: list[int]) -> None:
        read = ledger.champion().version  # type: ignore[union-attr]
        if not shown:
            steps.second()
            quick.deliver()
        shown.append(read)

    monkeypatch.setattr(quick, "_write", write)
    monkeypatch.setattr(slow, "_write", write_late)
    first = steps.first()
    slow.deliver()
    assert shown == [first + 1, first, first + 1]
    assert ledger.pending() == []


def test_a_missing_or_damaged_artefact_stops_no_other_version(home: Any, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    missing, damaged, whole = home.first(), home.second(bias=0.3), home.second(bias=0.6)
    folders = {v: home.store.folder / home.ledger.version(v).digest for v in (1, 2)}
    kept = tmp_path / "kept"
    folders[missing].rename(kept)
    (folders[damaged] / "policy.onnx").write_bytes(b"no policy")
    name = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mirror = Mirror(home.ledger, name, store=home.store, artifacts=str(tmp_path / "files"))
    assert mirror.deliver() == home.ledger.count()
    assert mirror.failure is None
    assert shown(name)[1] == {"champion": str(whole)}

    def sources() -> dict[str, bool]:
        entries = MlflowClient(name, name).search_model_versions(f"name='{MODEL}'")
        return {e.tags["srghn.version"]: not e.source.startswith("srghn:") for e in entries}

    assert sources() == {str(missing): False, str(damaged): False, str(whole): True}
    kept.rename(folders[missing])
    mirror.reconcile(Who("ann", "it is back"))
    assert sources() == {str(missing): True, str(damaged): False, str(whole): True}


def test_a_home_that_cannot_be_written_stays_pending(
    ledger: Ledger, steps: Any, tmp_path: Path
) -> None:
    steps.first()
    (tmp_path / "file").write_text("")
    mirror = Mirror(ledger, f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    assert mirror.deliver() == 0
    assert mirror.failure is not None
    assert len(ledger.pending()) == 5


def test_a_history_that_mlflow_saw_otherwise_is_found(
    ledger: Ledger, steps: Any, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger and witness are wound back together, with the key: MLflow still has the head."""
    monkeypatch.setattr("serving.registry.mirror.KEPT", 2)
    name = f"sqlite:///{tmp_path / 'heads.db'}"
    mirror = Mirror(ledger, name)
    steps.first()
    mirror.deliver()
    files = ("ledger.db", "witness.jsonl")
    copy = backup.save(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "b" / "ledger")
    before = {"ledger.db": copy.read_bytes(), files[1]: (tmp_path / files[1]).read_bytes()}
    steps.second()
    mirror.deliver()
    heads = mirror.heads()
    assert [head.seq for head in heads] == [5, ledger.count()]
    ledger.compare_heads(heads)
    steps.register()
    mirror.deliver()
    assert [head.seq for head in mirror.heads()] == [heads[1].seq, ledger.count()]  # of each 2

    with pytest.raises(LedgerError, match=r"was changed: .* srghn sync --key-lost"):
        ledger.compare_heads([replace(heads[0], seq=4)])
    ledger.close()
    (tmp_path / "ledger.db-wal").unlink(missing_ok=True)
    for file in files:
        (tmp_path / file).write_bytes(before[file])
    wound = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert wound.verify() == 5  # by the files of this home nothing is wrong
    with pytest.raises(LedgerError, match=r"ends with event 5, MLflow saw event .* wound back"):
        wound.compare_heads(Mirror(wound, name).heads())
    wound.close()

    who = Who("ann", "the lawful way")
    lawful = backup.restore(f"sqlite:///{tmp_path / 'ledger.db'}", copy, tmp_path, who).ledger
    lawful.compare_heads(Mirror(lawful, name).heads())  # those from before it are void
    Mirror(lawful, name).reconcile(who)
    lawful.compare_heads(Mirror(lawful, name).heads())
    (tmp_path / "witness.jsonl").write_bytes(before["witness.jsonl"])
    with pytest.raises(LedgerError, match="knows of 1 restores, the witness of 0"):
        lawful.compare_heads(Mirror(lawful, name).heads())
    lawful.close()


def test_what_a_restore_undid_is_no_version_in_mlflow_either(
    ledger: Ledger, steps: Any, uri: str, tmp_path: Path
) -> None:
    """The alias stayed on the champion that was undone, and its policy got the next one's name."""
    from mlflow.tracking import MlflowClient

    name, url = f"sqlite:///{tmp_path / 'undone.db'}", f"sqlite:///{tmp_path / 'ledger.db'}"
    client = MlflowClient(name, name)
    first = steps.first()
    copy = backup.save(url, tmp_path / "b" / "ledger")
    undone = steps.second()
    Mirror(ledger, name).deliver()
    before = client.get_model_version_by_alias(MODEL, "champion")
    assert before.tags["srghn.version"] == str(undone)
    ledger.close()

    restored = backup.restore(url, copy, tmp_path, Who("ann", "it was wrong")).ledger
    Mirror(restored, name).deliver()  # as srghn sync does, which the command advises
    shown = client.get_model_version_by_alias(MODEL, "champion").tags
    assert (shown["srghn.version"], shown["srghn.state"]) == (str(first), "CHAMPION")
    kept = client.get_model_version(MODEL, before.version).tags
    assert (kept["srghn.state"], kept["srghn.undone_version"]) == ("UNDONE", str(undone))

    again = restored.register(
        "a" * 64,
        env_fingerprint="e" * 64,
        mode="normal",
        run_id="run",
        manifest={},
        who=Who("pipeline", "frozen"),
    )
    assert again == undone
    Mirror(restored, name).deliver()
    found = {entry.tags.get("srghn.version"): entry for entry in client.search_model_versions("")}
    assert found[str(again)].source.endswith("a" * 64)
    assert client.get_model_version(MODEL, before.version).tags == kept
    restored.close()


def test_what_another_process_adds_during_a_delivery_is_not_taken_for_undone(
    ledger: Ledger, steps: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in MLflow and not in the list that had just been read from the ledger."""
    from mlflow.tracking import MlflowClient

    name = f"sqlite:///{tmp_path / 'both.db'}"
    steps.first()
    slow, quick, read = Mirror(ledger, name), Mirror(ledger, name), ledger.versions

    def read_late(*given: Any, **more: Any) -> Any:
        found = read(*given, **more)
        monkeypatch.setattr(ledger, "versions", read)
        steps.second()
        quick.deliver()
        return found

    monkeypatch.setattr(ledger, "versions", read_late)
    slow.deliver()
    assert quick.failure is None
    client = MlflowClient(name, name)
    entries = client.search_model_versions("")
    assert UNDONE not in {entry.tags.get("srghn.state") for entry in entries}
    assert client.get_model_version_by_alias(MODEL, "champion").tags["srghn.version"] == "2"


def test_heads_of_a_lost_key_are_forgotten_if_the_history_agrees(
    ledger: Ledger, steps: Any, uri: str, tmp_path: Path
) -> None:
    """After a restore, too: the earlier ones are void."""
    name, url = f"sqlite:///{tmp_path / 'heads.db'}", f"sqlite:///{tmp_path / 'ledger.db'}"
    mirror, who = Mirror(ledger, name), Who("ann", "the disk died")
    steps.first()
    mirror.deliver()
    assert mirror.forget_heads() == 0  # none of this home's key
    copy = backup.save(url, tmp_path / "b" / "ledger")
    steps.second()
    mirror.deliver()
    ledger.close()
    restored = backup.restore(url, copy, tmp_path, who).ledger
    Mirror(restored, name).reconcile(who)
    restored.close()
    for file in ("witness.jsonl", "witness.key"):
        (tmp_path / file).unlink()

    later = Ledger(url)
    mirror = Mirror(later, name)
    with pytest.raises(LedgerError, match=r"is signed with key .* srghn sync --key-lost"):
        later.compare_heads(mirror.heads())
    later.note("seen", {}, who=who)
    count = len(mirror.heads())
    assert count == 3
    assert mirror.forget_heads() == count
    assert mirror.heads() == []
    mirror.reconcile(who)
    later.compare_heads(mirror.heads())
    assert len(mirror.heads()) == 1

    seq = mirror.heads()[0].seq
    (tmp_path / "witness.jsonl").unlink()
    (tmp_path / "witness.key").unlink()
    later.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as raw:
        unguarded = [f"DROP TRIGGER events_no_{verb}" for verb in ("UPDATE", "DELETE")]
        for statement in (*unguarded, f"UPDATE events SET hash = 'x' WHERE seq = {seq}"):
            raw.execute(statement)
        raw.commit()
    rewritten = Ledger(url)
    with pytest.raises(LedgerError, match="the history was rewritten"):
        Mirror(rewritten, name).forget_heads()
    assert len(Mirror(rewritten, name).heads()) == 1
    rewritten.close()


def test_a_store_that_is_away_for_a_while_is_not_a_missing_artefact(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = home.ledger.version(home.first())

    def away(digest: str) -> Any:
        raise StoreAway("the store is away")

    monkeypatch.setattr(home.store, "load", away)
    with pytest.raises(StoreAway):  # so the delivery fails, and the event stays pending
        published.find(home.store, version)
