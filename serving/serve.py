"""The HTTP server as a process: one socket, one or more workers, a clean shutdown."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import resource
import socket
import ssl
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from serving.limits import Limits, load_limits
from serving.logs import begin_logging
from serving.metrics import SHARED
from serving.protocol import guarded
from serving.settings import Settings, url_of
from serving.workers import Beat, supervise
from srghn.errors import ConfigError, ServiceError

logger = logging.getLogger(__name__)


def serve(settings: Settings, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT, then finish the open requests.

    Writes one line with the server's URL to stdout once its socket is bound (port 0 takes a free
    one). Raises `ServiceError` if the port is taken, `LedgerError` if the ledger cannot be opened,
    `ConfigError` if TLS cannot begin with the files that are named.
    """
    from serving.registry.database import Database
    from serving.registry.ledger import Ledger

    settings, limits = settings.resolved(), load_limits()
    begin_logging(settings.log)
    database = Database(settings.database_url, home=settings.home)
    ledger = Ledger(database, witness_key=settings.witness_key)
    ledger.verify_served()  # a broken ledger is reported once here, not by each worker
    ledger.close()
    require_tokens(settings)
    if settings.tls_certificate is not None:
        _require_pair(settings.tls_certificate, settings.tls_key)
    bound = _bind(settings.host, settings.port)
    url = url_of(settings.host, bound.getsockname()[1])
    if settings.tls_certificate is not None:
        url = url.replace("http://", "https://", 1)
    sys.stdout.write(f"srghn serves {url}\n")
    sys.stdout.flush()
    # a wrong home looks like a lost champion
    logger.info("home folder %s, ledger %s", settings.home, database.name)
    _raise_file_limit(workers * 64 + 2 * limits.connections)
    try:
        if workers > 1:
            with tempfile.TemporaryDirectory(prefix="srghn-counts-") as folder:
                os.environ[SHARED] = folder
                supervise(
                    lambda beat: _work(settings, limits, bound, beat),
                    workers,
                    limits.drain_seconds,
                    limits.stuck_seconds,
                )
        else:
            _work(settings, limits, bound, lambda: None)
    finally:
        bound.close()


def require_tokens(settings: Settings) -> None:
    """Raise `ConfigError` if other machines could reach a server without tokens."""
    from serving.registry.database import Database
    from serving.tokens import Tokens

    if settings.public and not Tokens(Database(settings.database_url)).any_valid():
        raise ConfigError(
            f"{settings.host} is reachable from other machines and there is no token: add one "
            "(srghn token add NAME --scopes infer,outcome), serve on 127.0.0.1, or give "
            "--without-tokens"
        )


def _require_pair(certificate: Path, key: Path | None) -> None:
    """Raise `ConfigError` unless TLS can begin with a certificate and its key."""
    for name, file in (("CERTIFICATE", certificate), ("KEY", key)):
        if file is None:
            continue
        try:
            pem = b"-----BEGIN " in file.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read SRGHN_TLS_{name} {file}: {error.strerror or error}; name a PEM file "
                "that this user can read"
            ) from error
        if not pem:
            raise ConfigError(f"SRGHN_TLS_{name} {file} is no PEM file; name one that is")

    def ask() -> str:  # without it OpenSSL asks the terminal
        raise ConfigError(f"{key or certificate} has a passphrase: give a key without one")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, ask)
    except OSError as error:
        both = f"SRGHN_TLS_CERTIFICATE {certificate} and SRGHN_TLS_KEY {key or 'in the same file'}"
        cause = {"KEY_VALUES_MISMATCH": "the key is that of another certificate"}
        raise ConfigError(
            f"TLS cannot begin with {both}: {cause.get(getattr(error, 'reason', ''), error)}; "
            "name a certificate and its own key"
        ) from error


def _work(settings: Settings, limits: Limits, bound: socket.socket, beat: Beat) -> None:
    """Run one worker until it is told to stop; its event loop calls `beat` ten times a second."""
    from serving.app import create_app

    app = create_app(settings, limits)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,  # its lines go to our handler, which gives them a time and a request's id
        log_level="warning",
        server_header=False,
        http=guarded(limits, app.state.service.metrics.counts),
        ws="none",  # there is no route for it: a request to upgrade is answered as any other
        root_path=settings.root_path.rstrip("/"),
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=limits.drain_seconds,
    )
    _Server(config, app.state.service, limits, beat).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Marks the service as draining before it stops, and calls `beat` from start to end."""

    def __init__(self, config: uvicorn.Config, service: Any, limits: Limits, beat: Beat) -> None:
        super().__init__(config)
        self._service, self._limits, self._beat = service, limits, beat

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then exempt what stays from collections of garbage: a full one took 75 ms."""
        if self.config.is_ssl:  # no setting of uvicorn's says these
            loop: Any = asyncio.get_running_loop()
            loop.create_server = partial(
                loop.create_server,
                ssl_handshake_timeout=self._limits.head_seconds,  # by default a minute
                # by default as long as a server drains: a client that is idle agrees to no end
                ssl_shutdown_timeout=self._limits.answer_seconds,
            )
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        self._beating = asyncio.create_task(self._beats())

    async def _beats(self) -> None:
        while True:
            self._beat()
            await asyncio.sleep(0.1)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.draining = True
        super().handle_exit(sig, frame)


def _raise_file_limit(wanted: int) -> None:
    """Raise the limit of open files (connections are files), as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises `ServiceError` that says what to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(2048)
    except (OSError, UnicodeError) as error:  # the latter for a name with parts that are too long
        bound.close()
        said = getattr(error, "strerror", None) or error
        raise ServiceError(f"cannot listen on {host}:{port}: {said}; {_remedy(error)}") from error
    bound.set_inheritable(True)
    return bound


def _remedy(error: Exception) -> str:
    """What to do about a socket that could not be bound."""
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror | UnicodeError) or number == errno.EADDRNOTAVAIL:
        return (
            "give --host an address of this machine (127.0.0.1: for this machine alone, 0.0.0.0: "
            "for others, too) or a name that leads to one"
        )
    if number in (errno.EACCES, errno.EPERM):
        return "choose a port above 1023 with --port: lower ones need rights"
    return "stop what uses it, or choose another with --port (0 takes a free one)"
