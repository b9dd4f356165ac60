"""A real S3 server on the loopback interface, with a faulty proxy before it."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from tests.servers.faulty_proxy import FaultyProxy

# A region of its own that no other setting of this machine can change.
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARYACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+key",
    "AWS_SESSION_TOKEN": "canary-session-token",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_TIMEOUT": "60s",
    "AWS_MAX_ATTEMPTS": "5",
}
# On a page of a listing. AWS has 1,000, which takes long to write.
MAX_KEYS = 100
_buckets = itertools.count()


@contextmanager
def s3_server() -> Iterator[int]:
    """Run an S3 server; yields its port.

    It is a process of its own: vLLM, at its start, looks at every name of every loaded module, and
    Flask's, which moto is built on, do not bear that.
    """
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(MAX_KEYS)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                raise RuntimeError("The S3 server did not start.")
            threading.Thread(target=deque, args=(server.stderr, 0), daemon=True).start()
            yield int(found[1])
        finally:
            server.kill()


def client(port: int) -> Any:
    """A client of another make, straight to the server."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        region_name="us-east-1",
    )


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(scope="session")
def proxy_of_session(s3_port: int) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_port) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_of_session: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The proxy, without faults; this process and those it starts use it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (SETTINGS | {"AWS_ENDPOINT_URL": proxy_of_session.url}).items():
        monkeypatch.setenv(name, value)
    proxy_of_session.restart_counting(lambda request: None)
    proxy_of_session.injected.clear()
    proxy_of_session.upload_was_cut.clear()
    yield proxy_of_session
    proxy_of_session.restart_counting(lambda request: None)


@pytest.fixture
def s3(s3_port: int) -> Any:
    return client(s3_port)


@pytest.fixture
def bucket(s3: Any, proxy: FaultyProxy) -> str:
    """The name of an empty bucket."""
    name = f"bucket-{next(_buckets)}"
    s3.create_bucket(Bucket=name)
    return name
