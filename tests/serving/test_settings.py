"""Settings: the same wherever a process runs, and told when they cannot be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.limits import load_limits
from serving.settings import Settings, load_settings, unknown_variables, url_of
from srghn.errors import ConfigError
from srghn.quiet import LOOPBACK, be_quiet


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("SRGHN_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["HOST", "PORT", "HOME", "DATABASE_URL", "AUTH", "WORKERS"])
def test_an_empty_variable_means_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()
    monkeypatch.setenv(f"SRGHN_{name}", "")
    assert load_settings() == before
    assert before.host == "127.0.0.1"


def test_an_empty_host_never_means_every_address() -> None:
    with pytest.raises(ConfigError, match="SRGHN_HOST"):
        load_settings(host="")


def test_relative_paths_and_urls_are_absolute_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        home="kept", database_url="sqlite:///book/ledger.db", mlflow_uri="tracked", workers=2
    )
    assert settings.home == tmp_path / "kept"
    assert settings.database_url == f"sqlite:///{tmp_path}/book/ledger.db"
    assert settings.mlflow_uri == (tmp_path / "tracked").as_uri()
    code = (
        "import json; from serving.settings import load_settings; "
        "print(json.dumps(load_settings().environment()))"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == settings.environment()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["postgresql://somebody@db/ledger", "sqlite:////var/ledger.db", "sqlite://"]
)
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert load_settings(database_url=url).database_url == url


def test_tracking_servers_stay_as_they_are() -> None:
    assert load_settings(mlflow_uri="http://mlflow:5000").mlflow_uri == "http://mlflow:5000"


@pytest.mark.parametrize("letter", ["?", "#", "%", "\n"])
def test_a_home_that_the_tools_cannot_take_is_refused_at_once(letter: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set SRGHN_HOME to another folder"):
        load_settings(home=tmp_path / f"a{letter}b")


def test_a_variable_that_is_no_setting_is_said() -> None:
    said = unknown_variables({"SRGHN_PROT": "x", "SRGHN_PORT": "1", "SRGHN_PARENT_PID": "2"})
    assert said == ["SRGHN_PROT is not a setting and is ignored; did you mean SRGHN_PORT?"]


def test_a_command_says_it_once_and_goes_on(srghn_here: Callable[..., Any]) -> None:
    done = srghn_here("candidates", "--json", env={"SRGHN_HOEM": "elsewhere"})
    assert done.returncode == 0
    assert done.stderr.count("did you mean SRGHN_HOME?") == 1


def test_loopback_is_spared_from_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    for _ in range(2):
        be_quiet()
        assert os.environ["NO_PROXY"] == ",".join(("intranet", *LOOPBACK))
        assert os.environ["no_proxy"] == ",".join(LOOPBACK)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("policies.example", "http://policies.example:80"),
    ],
)
def test_a_url_names_its_host_as_a_client_must(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def test_runs_are_shared_only_with_what_they_need() -> None:
    whole = {
        "work_pool": "fleet",
        "database_url": "postgresql://srghn@db/ledger",
        "store_url": "s3://bucket/srghn",
        "prefect_api_url": "http://prefect:4200/api",
    }
    assert load_settings(**whole).work_pool == "fleet"
    for name in ("database_url", "store_url", "prefect_api_url"):
        with pytest.raises(ConfigError, match=f"SRGHN_WORK_POOL .* needs SRGHN_{name.upper()}"):
            load_settings(**{**whole, name: ""})
    with pytest.raises(ConfigError, match="SRGHN_WORK_POOL"):
        load_settings(**{**whole, "work_pool": "no pool"})


def _ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.services
@pytest.mark.skipif(not _ipv6(), reason="this machine has no IPv6 loopback")
def test_it_serves_on_ipv6_and_says_where(shared_home: Any) -> None:
    command = [sys.executable, "-m", "srghn.start", "serve", "--host", "[::1]", "--port", "0"]
    environment = {**os.environ, **shared_home.settings.environment()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        assert url.startswith("http://[::1]:")
        assert httpx.get(f"{url}/health/live", trust_env=False).status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_every_setting_has_a_description() -> None:
    assert [n for n, f in Settings.model_fields.items() if not f.description] == []


def test_a_proxy_is_not_asked_for_a_server_on_this_machine() -> None:
    code = (
        "import http.server, threading, httpx; from srghn.quiet import be_quiet\n"
        "be_quiet()\n"
        "class Yes(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(204); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Yes)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "print(httpx.get(f'http://127.0.0.1:{server.server_port}').status_code)\n"
    )
    proxies = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **proxies},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "204", done.stderr


def test_an_episode_has_some_time_for_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """With none every outcome outside trials is late, and the watch counts no return."""
    monkeypatch.setenv("SRGHN_LIMIT_EPISODE_SECONDS", "0")
    with pytest.raises(ConfigError) as refused:
        load_limits()
    said = "setting SRGHN_LIMIT_EPISODE_SECONDS: expected more than 0, got '0'"
    assert str(refused.value) == said
