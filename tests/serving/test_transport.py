"""Settings of the transport on a real server: TLS, a proxy's headers, idle connections."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.limits import Limits
from serving.serve import serve
from serving.tokens import Tokens
from srghn.errors import ConfigError
from tests.serving.conftest import run_server
from tests.serving.test_serving_process import RIGHT, wait_for

pytestmark = pytest.mark.services

OBSERVATION = {"observation": RIGHT}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, and of localhost, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            False,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def lock_key(folder: Path) -> None:
    """Write the key again under a passphrase, as `locked.key` and with the certificate."""
    key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (folder / "locked.key").write_bytes(locked)
    (folder / "locked.pem").write_bytes((folder / "tls.crt").read_bytes() + locked)


@pytest.fixture(scope="module")
def plain(shared_home: Any) -> Iterator[str]:
    """A server with the settings that it has by itself."""
    with run_server(shared_home) as (url, _):
        wait_for(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        yield url


def test_it_speaks_tls_itself(home: Any, running: Any, tmp_path: Path) -> None:
    home.first()
    crt, key = certificate(tmp_path)
    settings = {"SRGHN_TLS_CERTIFICATE": str(crt), "SRGHN_TLS_KEY": str(key)}
    settings["SRGHN_LIMIT_HEAD_SECONDS"] = "2"  # also for the handshake
    settings["SRGHN_LIMIT_ANSWER_SECONDS"] = "2"  # also for a client to agree to the end
    with running(home, environment=settings) as (url, process):
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(crt))
        with httpx.Client(base_url=url, verify=trusting, timeout=10) as client:
            wait_for(lambda: client.get("/health/ready").status_code == 200)
            assert client.post("/v1/act", json=OBSERVATION).json()["action"] == 1
            token = Tokens(home.ledger.database()).add("ann", ["review"])
            cookie = client.post("/sign-in", data={"token": token}).headers["set-cookie"]
            assert cookie.endswith("; Secure")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health/live")  # whose certificate nobody vouches for
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http{url.removeprefix('https')}/health/live")
        host, port = url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            assert silent.recv(1) == b""
        with httpx.Client(base_url=url, verify=trusting, timeout=10) as idle:
            idle.get("/health/live")
            process.terminate()
            assert process.wait(20) == 0  # it waited for the client as long as it drains


@pytest.mark.parametrize(
    ("crt", "key", "said"),
    [
        ("none.crt", "tls.key", "cannot read SRGHN_TLS_CERTIFICATE .*none.crt: No such file"),
        ("tls.crt", "none.key", "cannot read SRGHN_TLS_KEY .*none.key: No such file"),
        ("text", "tls.key", "SRGHN_TLS_CERTIFICATE .*text is no PEM file"),
        ("tls.crt", "other/tls.key", "tls.key: the key is that of another certificate"),
        ("tls.crt", "locked.key", "locked.key has a passphrase: give a key without one"),
        ("locked.pem", None, "locked.pem has a passphrase: give a key without one"),
        ("tls.key", "tls.key", "TLS cannot begin with SRGHN_TLS_CERTIFICATE .*tls.key"),
    ],
)
def test_files_that_are_no_pair_are_refused_before_it_serves(
    shared_home: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    crt: str,
    key: str | None,
    said: str,
) -> None:
    monkeypatch.setattr("serving.serve.begin_logging", lambda form: None)
    (tmp_path / "other").mkdir()
    certificate(tmp_path)
    certificate(tmp_path / "other")
    (tmp_path / "text").write_text("no certificate")
    lock_key(tmp_path)
    files = {"tls_certificate": tmp_path / crt, "tls_key": key and tmp_path / key}
    with pytest.raises(ConfigError, match=said):
        serve(shared_home.settings.model_copy(update={**files, "port": 0}))
    assert capsys.readouterr().out == ""


def test_its_log_names_the_home_at_a_time(plain: str, shared_home: Any) -> None:
    home = shared_home.settings.home
    first = (home / "server.log").read_text().splitlines()[0]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z INFO serving.serve: home folder ", first)
    assert first.endswith(f" {home}, ledger {home / 'ledger.db'}")


#: A server with a defect: it asks `None` for the champion.
BROKEN = """
import serving.app
from serving.serve import serve
from serving.settings import Settings

whole = serving.app.create_app

def create_app(*given):
    app = whole(*given)
    app.state.service.ledger.served = None
    return app

serving.app.create_app = create_app
serve(Settings().resolved().model_copy(update={"port": 0}))
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failure_is_logged_with_its_time_and_request(
    shared_home: Any, tmp_path: Path, form: str
) -> None:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    variables |= {"SRGHN_HOME": str(shared_home.settings.home), "SRGHN_LOG": form}
    command, log = [sys.executable, "-c", BROKEN], tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            wait_for(lambda: httpx.get(f"{url}/health/live").status_code == 200)
            sent = {"X-Request-Id": "mine"}
            assert httpx.get(f"{url}/v1/champion", headers=sent).status_code == 500
        finally:
            process.terminate()
    [told] = [line for line in log.read_text().splitlines() if "Exception in ASGI" in line]
    if form == "text":
        said = "ERROR uvicorn.error: Exception in ASGI application (request mine)"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z " + re.escape(said), told)
    else:
        line = json.loads(told)
        assert (line["logger"], line["request_id"]) == ("uvicorn.error", "mine")
        assert line["message"] == "Exception in ASGI application"
        assert datetime.fromisoformat(line["time"]).tzinfo is UTC
        assert "TypeError" in line["exception"]
    assert "GET /v1/champion" not in log.read_text()  # there is no log of accesses


def signed_in(url: str, token: str) -> str:
    """The cookie of a session that a proxy hands on as https."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.7"}
    answer = httpx.post(f"{url}/sign-in", data={"token": token}, headers=headers)
    assert answer.status_code == 303, answer.text
    return answer.headers["set-cookie"]


def test_forwarded_headers_are_believed_of_trusted_proxies_alone(
    shared_home: Any, plain: str, running: Any
) -> None:
    token = Tokens(shared_home.ledger.database()).add("ann", ["review"])
    assert not signed_in(plain, token).endswith("; Secure")
    for trusted, believed in (("127.0.0.1", True), ("10.9.9.9", False)):
        with running(shared_home, environment={"SRGHN_TRUSTED_PROXIES": trusted}) as (url, _):
            wait_for(lambda: httpx.get(f"{url}/health/live").status_code == 200)
            assert signed_in(url, token).endswith("; Secure") is believed


def ask(connection: socket.socket) -> bytes:
    """The whole answer, which may come in pieces: its body is one JSON object."""
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        more = connection.recv(4096)
        assert more, "the server closed the connection"
        answer += more
    return answer


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_an_idle_connection_is_kept_for_75_seconds_by_itself(plain: str) -> None:
    """uvicorn's own five seconds broke one in eight idle clients."""
    assert Limits().keep_alive_seconds == 75
    with connect(plain) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")
        time.sleep(6)
        assert ask(connection).startswith(b"HTTP/1.1 200")


def test_how_long_an_idle_connection_is_kept_is_a_setting(shared_home: Any, running: Any) -> None:
    environment = {"SRGHN_LIMIT_KEEP_ALIVE_SECONDS": "1"}
    with running(shared_home, environment=environment) as (url, _):
        wait_for(lambda: httpx.get(f"{url}/health/live").status_code == 200)
        with connect(url) as connection:
            assert ask(connection).startswith(b"HTTP/1.1 200")
            begun = time.monotonic()
            assert connection.recv(1) == b""  # closed by the server
            assert 0.5 < time.monotonic() - begun < 8
