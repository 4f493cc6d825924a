"""Which extra of this distribution installs a package that an import did not find."""

from __future__ import annotations

from srghn.errors import SrghnError

#: Import name -> the extra that installs it; where several do, the smallest one.
EXTRAS = {
    **dict.fromkeys(("cma", "gymnasium", "llvmlite", "numba", "onnx", "onnxscript"), "evolve"),
    **dict.fromkeys(("pyarrow", "threadpoolctl", "torch"), "evolve"),
    **dict.fromkeys(("fastapi", "jinja2", "onnxruntime", "orjson", "prometheus_client"), "serve"),
    **dict.fromkeys(("safetensors", "simdjson", "sqlalchemy", "starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("alembic", "cryptography", "fsspec", "markupsafe", "msgspec"), "serve"),
    "httptools": "serve",
    **dict.fromkeys(("httpcore", "httpx"), "client"),
    **dict.fromkeys(("cronsim", "dvc", "matplotlib", "mlflow"), "pipeline"),
    **dict.fromkeys(("great_expectations", "pandas", "prefect"), "pipeline"),
    "Box2D": "box2d",
    "mujoco": "mujoco",
    **dict.fromkeys(("dask", "distributed"), "dask"),
    "envpool": "envpool",
    "psycopg": "postgres",
    "s3fs": "s3",
}


class MissingExtra(SrghnError, ImportError):
    """A command or a name needs a package that only an extra installs."""

    def __init__(self, what: str, error: ModuleNotFoundError, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {_top(error)}, which is not installed; "
            f"pip install 'srghn[{extra}]'"
        )
        self._given = what, error, extra

    def __reduce__(self) -> tuple[object, ...]:
        """An exception is copied from its message alone, unless it says what made it."""
        return type(self), self._given, vars(self)


def needed(error: ModuleNotFoundError) -> str | None:
    """The extra that installs what was not found; None for a module that is no extra's."""
    return EXTRAS.get(_top(error))


def _top(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
