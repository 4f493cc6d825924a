"""Self-Referential Graph HyperNetworks: the algorithm, its worlds, and its evaluation."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("srghn")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
