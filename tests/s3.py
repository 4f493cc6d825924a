"""An S3-compatible server on loopback (moto), and the variables that a client finds it by."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "artefacts"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3:
    """A server with one bucket, which can go away and come back with what it held."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self.start()
        named = {name.lower(): value for name, value in KEYS.items() if "KEY" in name}
        self._client = boto3.client(
            "s3", endpoint_url=self.url, region_name=KEYS["AWS_DEFAULT_REGION"], **named
        )
        self._client.create_bucket(Bucket=BUCKET)

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def put(self, name: str, data: bytes) -> None:
        """Write an object past everything."""
        self._client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=name)


@contextmanager
def server() -> Iterator[S3]:
    """A running one, with this process's environment set to find it."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    made = S3()
    os.environ.update(made.environment)
    try:
        yield made
    finally:
        made.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with server() as made:
        yield made
