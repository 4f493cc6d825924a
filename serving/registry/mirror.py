"""Mirrors the ledger in MLflow's model registry: versions, tags, and two aliases.

Each policy is a separate registered model.

The mirror always writes the ledger's present state. So a delivery that is repeated, late or out of
order leads to the same result. MLflow decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from serving.registry.artefacts import ArtefactStore
from serving.registry.faults import unadvised
from serving.registry.heads import KEPT, Head, of_tags
from serving.registry.ledger import POLICY, Ledger
from serving.registry.published import find, publish
from serving.registry.records import Version, Who
from srghn.errors import LedgerError, first_line

logger = logging.getLogger(__name__)

#: A registered model's name is this prefix and the policy's name.
PREFIX = "srghn-"
MODEL = f"{PREFIX}{POLICY}"
_TAG, _STATE, _DIGEST = "srghn.version", "srghn.state", "srghn.digest"
#: State of what the ledger has no longer, since a backup was restored; the tag with its number.
UNDONE, _WAS = "UNDONE", "srghn.undone_version"
#: Prefix of the source of a model version that MLflow cannot load; all were so before 0.3.
UNLOADABLE = "srghn:"


class Mirror:
    """Delivers the ledger's outbox. `failure` says why the last delivery failed."""

    def __init__(
        self,
        ledger: Ledger,
        uri: str,
        *,
        store: ArtefactStore | None = None,
        artifacts: str | None = None,
    ) -> None:
        """`store` has the policies that MLflow is to load.

        `artifacts` is the folder for an embedded MLflow's files.
        """
        self.failure: str | None = None
        self._ledger, self._uri = ledger, uri
        self._store, self._artifacts = store, artifacts

    def deliver(self) -> int:
        """Write the pending events; returns the number delivered.

        If MLflow or the ledger cannot be used, the events stay pending, the reason is logged and
        kept in `failure`, and 0 is returned. Nothing else waits for the mirror: the step that the
        caller took before is committed, whatever happens here.
        """
        try:
            pending = written = self._ledger.pending()
            while written:
                self._write(sorted({e.version for e in written if e.version is not None}))
                # of what came meanwhile, another process may have delivered all before this did
                later = self._ledger.events(since=written[-1].seq)
                written = [event for event in later if event.version is not None]
            if pending:
                self._ledger.ack(pending[-1].seq)
        except Exception as error:  # noqa: BLE001  MLflow raises errors of many types
            self.failure = self._why(error)
            logger.warning("%s; it stays pending", self.failure)
            return 0
        self.failure = None
        return len(pending)

    def _why(self, error: Exception) -> str:
        if isinstance(error, LedgerError):
            return f"nothing is delivered to MLflow: {unadvised(error)}"
        return f"MLflow at {self._uri} refused the delivery: {first_line(error)}"

    def reconcile(self, who: Who) -> int:
        """Write every version and alias again, even those delivered before.

        If MLflow cannot be used, all of them stay pending.
        """
        self._ledger.redeliver(who=who)
        return self.deliver()

    def _write(self, versions: list[int]) -> None:
        from mlflow.tracking import MlflowClient  # takes seconds; only the mirror needs it

        client = MlflowClient(self._uri, self._uri)
        found = [self._ledger.version(number) for number in versions]
        for policy in sorted({version.policy for version in found}):
            of_policy = [version for version in found if version.policy == policy]
            self._write_policy(client, policy, of_policy)

    def _write_policy(self, client: Any, policy: str, versions: list[Version]) -> None:
        model = f"{PREFIX}{policy}"
        _ensure_model(client, model)
        known, unloadable = self._known(client, policy)
        for version in versions:
            number = version.version
            if number not in known:
                known[number] = self._create(client, version)
            elif number in unloadable and self._has(version):
                client.delete_model_version(model, known[number])
                known[number] = self._create(client, version)
            for key, value in _tags(version).items():
                client.set_model_version_tag(model, known[number], key, value)
        self._aliases(client, policy, known)
        self._append_head(client, model)

    def _append_head(self, client: Any, model: str) -> None:
        """Keep the signed head of the chain among the model's tags; see `heads`."""
        head = self._ledger.signed_head()
        if head is None:
            return
        client.set_registered_model_tag(model, head.tag, head.value)
        tags = client.get_registered_model(model).tags
        for old in of_tags(tags)[:-KEPT]:
            client.delete_registered_model_tag(model, old.tag)

    def heads(self) -> list[Head]:
        """The signed heads that MLflow keeps of every policy; raises `LedgerError`."""
        from mlflow.tracking import MlflowClient

        return [head for _, head in self._kept(MlflowClient(self._uri, self._uri))]

    def forget_heads(self) -> int:
        """Delete the heads that a lost key signed, if the history agrees; returns their number.

        Raises `LedgerError`; then none is deleted, unless MLflow fails meanwhile.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self._uri, self._uri)
        kept = self._kept(client)
        gone = set(self._ledger.foreign_heads([head for _, head in kept]))
        try:
            for model, head in kept:
                if head in gone:
                    client.delete_registered_model_tag(model, head.tag)
        except MlflowException as error:
            raise LedgerError(
                f"cannot delete heads in MLflow at {self._uri}: {first_line(error)}"
            ) from error
        return len(gone)

    def _kept(self, client: Any) -> list[tuple[str, Head]]:
        """Each model's name with each of its heads."""
        from mlflow.exceptions import MlflowException

        found = []
        for model in (f"{PREFIX}{policy.name}" for policy in self._ledger.policies()):
            try:
                heads = of_tags(client.get_registered_model(model).tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise LedgerError(
                        f"cannot read the heads in MLflow at {self._uri}: {first_line(error)}"
                    ) from error
            else:
                found += [(model, head) for head in heads]
        return found

    def _aliases(self, client: Any, policy: str, known: dict[int, str]) -> None:
        model = f"{PREFIX}{policy}"
        champion, canary = self._ledger.served(policy)
        wanted = {"champion": champion, "canary": canary}
        present = client.get_registered_model(model).aliases
        for alias, served in wanted.items():
            if served is not None and served.version not in known:
                version = self._ledger.version(served.version)
                known[served.version] = self._create(client, version)
            if served is not None:
                client.set_registered_model_alias(model, alias, known[served.version])
            elif alias in present:
                client.delete_registered_model_alias(model, alias)

    def _create(self, client: Any, version: Version) -> str:
        """A model version that MLflow can load; without its artefact, one with only its digest."""
        made = None
        if self._store is not None:
            made = publish(client, self._store, version, self._artifacts)
        created = client.create_model_version(
            f"{PREFIX}{version.policy}",
            source=made.source if made else f"{UNLOADABLE}{version.digest}",
            run_id=made.run_id if made else None,
            tags={_TAG: str(version.version), _DIGEST: version.digest},
        )
        return str(created.version)

    def _known(self, client: Any, policy: str) -> tuple[dict[int, str], set[int]]:
        """The ledger's version -> MLflow's; and the versions without a model.

        After a restore the ledger may give a number anew. What had it before, and what no version
        has now, is marked as undone and stays under no alias.
        """
        model, found, unloadable = f"{PREFIX}{policy}", dict[int, str](), set[int]()
        entries = list(_entries(client, model))  # first: another process may add a version to both
        own = {version.version: version.digest for version in self._ledger.versions(policy)}
        for entry in entries:
            number = int(entry.tags[_TAG])
            if own.get(number) != entry.tags.get(_DIGEST):
                client.set_model_version_tag(model, entry.version, _STATE, UNDONE)
                client.set_model_version_tag(model, entry.version, _WAS, str(number))
                client.delete_model_version_tag(model, entry.version, _TAG)
                continue
            found[number] = str(entry.version)
            if str(entry.source).startswith(UNLOADABLE):
                unloadable.add(number)
        return found, unloadable

    def _has(self, version: Version) -> bool:
        return self._store is not None and find(self._store, version) is not None


def _ensure_model(client: Any, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(model, description="Mirrored from the srghn ledger.")


def _entries(client: Any, model: str) -> Iterator[Any]:
    """MLflow's versions of a model that stand for one of the ledger's, by the mirror's tag."""
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name='{model}'", page_token=token)
        yield from (entry for entry in page if _TAG in entry.tags)
        token = page.token
        if not token:
            return


def _tags(version: Version) -> dict[str, str]:
    return {
        _STATE: version.state,
        _DIGEST: version.digest,
        "srghn.env_fingerprint": version.env_fingerprint,
        "srghn.mode": version.mode,
        "srghn.run_id": version.run_id,
        "srghn.report": version.report_digest or "none",
        "srghn.quarantined": str(version.quarantined).lower(),
    }
