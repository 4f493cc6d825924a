"""Settings of this machine: environment variables `SRGHN_*`. All have defaults."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.limits import PREFIX as LIMIT_PREFIX
from serving.limits import Limits
from srghn.config import EngineSettings, explain
from srghn.errors import ConfigError
from srghn.parents import PARENT

PREFIX = "SRGHN_"
#: Set by our own processes for their children, not by users.
INTERNAL = frozenset({PARENT, "SRGHN_IMPORT_PATH", "SRGHN_COUNTS_FOLDER", "SRGHN_PAGES_URL"})
#: Characters with a special meaning in SQLite URLs, MLflow or DVC.
REFUSED_IN_PATHS = "?#%\n\r\t"


class Settings(EngineSettings, BaseSettings):
    """The settings of one machine's processes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True
    )

    def __init__(self, **values: Any) -> None:
        BaseSettings.__init__(self, **values)  # `load_settings` words its errors, by the variable

    home: Path = Field(Path(".srghn"), description="folder for all data")
    database_url: str = Field("", description="ledger; default SQLite in the home folder")
    mlflow_uri: str = Field(
        "", description="tracking and registry; default SQLite in the home folder"
    )
    store_url: str = Field(
        "",
        description="artefact store that hosts share: s3://BUCKET/PREFIX or file:///FOLDER; "
        "default the home alone",
    )
    store_seconds: float = Field(
        30.0, ge=0, description="seconds that a command waits for an artefact store that is away"
    )
    prefect_api_url: str = Field("", description="Prefect server; default: srghn starts one")
    prefect_seconds: float | None = Field(
        None,
        gt=0,
        description="seconds that a Prefect server may take to answer; default 120 for one that "
        "is started here, 5 for one by URL",
    )
    work_pool: str = Field(
        "",
        pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Prefect work pool whose workers on several hosts share the runs; default one "
        "whose runs are this home's alone",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address the HTTP server listens on")
    port: int = Field(8000, ge=0, le=65535, description="port of the HTTP server; 0: a free one")
    auth: Literal["changes", "inference", "everything"] = Field(
        "changes", description="what needs a token over HTTP; each includes those before it"
    )
    without_tokens: bool = Field(
        False, description="beyond loopback, serve without tokens: anyone may use the server"
    )
    hosts: str = Field(
        "",
        description="host names to answer beside localhost and addresses, separated by commas; "
        "default any, or on loopback names without a dot",
    )
    root_path: str = Field("", description="path prefix that a proxy strips, such as /policies")
    trusted_proxies: str = Field(
        "", description="addresses whose X-Forwarded-* headers are trusted, separated by commas"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate; enables TLS"
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    traces: str = Field("", description="OTLP/HTTP address for traces of requests; default none")
    traces_share: float = Field(
        1.0, ge=0, le=1, description="share of the traces begun by this server that is kept"
    )
    log: Literal["text", "json"] = Field("text", description="form of the server's log lines")
    unblind: bool = Field(
        False, description="answers show the arm of a trial; by default they do not"
    )
    samples: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description="observations kept of each policy for diagnoses, two per episode; 0: none",
    )
    witness_key: Path | None = Field(
        None, description="key that signs the ledger's history; default witness.key in the home"
    )

    def resolved(self) -> Settings:
        """The same settings with absolute paths and URLs and with every default filled in.

        Raises `ConfigError` if SQLite, MLflow or DVC cannot use the home folder's path, and if the
        artefact store's URL is invalid or holds credentials.
        """
        home, key = self.home.expanduser().absolute(), self.witness_key
        if self.work_pool:
            self._require_shared()
        if any(letter in str(home) for letter in REFUSED_IN_PATHS):
            shown = " ".join(REFUSED_IN_PATHS[:3])
            raise ConfigError(
                f"the home folder's path must not hold any of {shown}, got {str(home)!r}; "
                "set SRGHN_HOME to another folder"
            )
        return self.model_copy(
            update={
                "home": home,
                "witness_key": None if key is None else key.expanduser().absolute(),
                "store_url": _store(self.store_url),
                "database_url": _absolute(self.database_url) or f"sqlite:///{home / 'ledger.db'}",
                "mlflow_uri": _absolute(self.mlflow_uri, bare=True)
                or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
                "host": self.host.strip("[]"),
            }
        )

    def _require_shared(self) -> None:
        """A host that takes another's run needs the same ledger, store and Prefect server."""
        local = not self.database_url or self.database_url.startswith("sqlite")
        absent = [
            f"{PREFIX}{name}"
            for name, lacks in (
                ("DATABASE_URL of a PostgreSQL ledger", local),
                ("STORE_URL", not self.store_url),
                ("PREFECT_API_URL", not self.prefect_api_url),
            )
            if lacks
        ]
        if absent:
            raise ConfigError(
                f"SRGHN_WORK_POOL shares runs between hosts, which needs {', '.join(absent)}, too; "
                "set them, or unset SRGHN_WORK_POOL"
            )

    # ----------------------------------------------------------------- contents of the home

    @property
    def artefacts(self) -> Path:
        """Candidates, each in a folder named by its digest."""
        return self.home / "artefacts"

    @property
    def reports(self) -> Path:
        """Reports of the gate, each in a folder named by its page's digest."""
        return self.home / "reports"

    @property
    def workspaces(self) -> Path:
        """The runs' workspaces, one folder each."""
        return self.home / "workspaces"

    @property
    def mlflow(self) -> Path:
        """The embedded MLflow: its database and its artifacts."""
        return self.home / "mlflow"

    @property
    def mlflow_is_embedded(self) -> bool:
        return self.mlflow_uri.startswith("sqlite:")

    def serves(self, name: str) -> bool:
        """Whether requests may be sent to this host name, in lower case.

        Addresses are always right; `srghn up` and health checks ask by them. By default a server on
        loopback without a proxy answers otherwise only to names without a dot: another site can
        make its own name resolve to this machine (DNS rebinding), and its page would then be one of
        this server to the browser.
        """
        last = name.rpartition(".")[2]
        if name in ("localhost", self.host.lower()) or last.isdecimal() or ":" in name:
            return True
        if self.hosts:
            return name in (one.strip().lower().removesuffix(".") for one in self.hosts.split(","))
        return self.behind_proxy or not self.loopback or last in (name, "localhost")

    @property
    def behind_proxy(self) -> bool:
        """Whether the settings say that requests come through a proxy."""
        return bool(self.root_path or self.trusted_proxies)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def public(self) -> bool:
        """Whether outcomes need a token even if no token has scope outcome."""
        return not self.loopback and not self.without_tokens

    def environment(self) -> dict[str, str]:
        """These settings as variables for a child process, whatever its working directory."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"{PREFIX}{name.upper()}": "" if value is None else str(value)
            for name, value in found.items()
        }


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; raises `ConfigError` with the variable's name."""
    try:
        return Settings(**overrides).resolved()
    except ValidationError as error:
        raise ConfigError(explain(error, f"setting {PREFIX}")) from error


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable `SRGHN_*` that is not a setting."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{LIMIT_PREFIX}{name.upper()}" for name in Limits.model_fields}
    said = []
    for name in sorted(set(environment) - known - INTERNAL):
        if name.startswith(PREFIX):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            said.append(f"{name} is not a setting and is ignored; {hint}")
    return said


def url_of(host: str, port: int) -> str:
    """The URL of a server that listens on `host`, for a client on this machine.

    For a server that listens on every address it is the loopback address. IPv6 is in brackets.
    """
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _absolute(url: str, bare: bool = False) -> str:
    """A SQLite URL (if `bare`, also a plain path) made absolute from the current folder."""
    scheme, slashes, rest = url.partition(":///")
    if slashes and scheme.split("+")[0] == "sqlite" and rest and rest != ":memory:":
        path, mark, query = rest.partition("?")
        return f"{scheme}:///{Path(path).expanduser().absolute()}{mark}{query}"
    if bare and url and not urlsplit(url).scheme:
        return Path(url).expanduser().absolute().as_uri()
    return url


def _store(url: str) -> str:
    """The artefact store's URL without a last slash; raises `ConfigError` for any other text.

    It is shown, logged and handed to child processes, so it must hold no credentials.
    """
    if not url:
        return url
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "SRGHN_STORE_URL must hold no credentials and no query; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws, as for any S3 client"
        )
    local = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    place = local or (parts.scheme != "file" and parts.netloc)
    if not parts.scheme or not place:
        raise ConfigError(
            f"SRGHN_STORE_URL must be like s3://BUCKET/PREFIX or file:///FOLDER, got {url!r}"
        )
    return url.rstrip("/")
