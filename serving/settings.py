"""Where things are kept and served: environment variables `SRGHN_*`, nothing else needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from srghn.config import EngineSettings, explain
from srghn.errors import ConfigError


class Settings(EngineSettings, BaseSettings):
    """All that a process needs to know about this machine."""

    model_config = SettingsConfigDict(env_prefix="SRGHN_", extra="ignore", frozen=True)

    home: Path = Path(".srghn")
    database_url: str = Field("", description="ledger; default SQLite in the home folder")
    mlflow_uri: str = Field(
        "", description="tracking and registry; default SQLite in the home folder"
    )
    prefect_api_url: str = Field("", description="Prefect server; default one started as needed")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    auth: Literal["changes", "inference", "everything"] = Field(
        "changes", description="what needs a token over HTTP; each includes those before it"
    )
    witness_key: Path | None = Field(
        None, description="key that signs the ledger's history; default witness.key in the home"
    )

    def resolved(self) -> Settings:
        """The same settings with absolute home and every default URL filled in."""
        home, key = self.home.expanduser().absolute(), self.witness_key
        return self.model_copy(
            update={
                "home": home,
                "witness_key": None if key is None else key.expanduser().absolute(),
                "database_url": self.database_url or f"sqlite:///{home / 'ledger.db'}",
                "mlflow_uri": self.mlflow_uri or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
            }
        )


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; raises `ConfigError` with the variable's name."""
    try:
        return Settings(**overrides).resolved()
    except ValidationError as error:
        raise ConfigError(explain(error, "setting SRGHN_")) from error
