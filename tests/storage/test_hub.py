"""Input from the Hugging Face hub, played by a server on this machine that knows four requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.e2e.jobs import write_job
from tests.e2e.processes import rgpt_batch, started

REPOSITORY = "datasets/owner/pairs"


class _Hub(BaseHTTPRequestHandler):
    """Serves the files of one commit of one repository: path → content."""

    protocol_version = "HTTP/1.1"
    commits: dict[str, dict[str, bytes]]
    main: str
    num_reads: int
    max_reads: int

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"/api/{REPOSITORY}/revision/"):
            revision = path.rpartition("/")[2]
            commit = self.main if revision == "main" else revision
            self._answer({"_id": "1", "id": "owner/pairs", "sha": commit, "siblings": []})
        elif path == f"/api/{REPOSITORY}":
            self._answer({"_id": "1", "id": "owner/pairs", "sha": self.main, "siblings": []})
        elif path.startswith(f"/api/{REPOSITORY}/tree/"):
            commit, _, folder = path.removeprefix(f"/api/{REPOSITORY}/tree/").partition("/")
            files = [
                {"type": "file", "path": name, "size": len(content), "oid": "0"}
                for name, content in self.commits[commit].items()
                if name.startswith(f"{folder}/" if folder else "")
            ]
            self._answer(files)
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            commit, _, name = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")
            low, _, high = self.headers["Range"].removeprefix("bytes=").partition("-")
            content = self.commits[commit][name][int(low) : int(high) + 1]
            type(self).num_reads += 1
            if self.num_reads > self.max_reads:
                self._answer({"error": "gone"}, 404)
            else:
                self._answer(content, 206)
        else:
            self._answer({"error": f"unknown {path}"}, 404)

    do_HEAD = do_GET

    def _answer(self, content: Any, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[type[_Hub], str]]:
    handler = type("Hub", (_Hub,), {"commits": {}, "main": "", "num_reads": 0, "max_reads": 10**6})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_job_reads_the_commit_that_its_revision_means_when_it_is_planned(
    hub: tuple[type[_Hub], str], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    handler, url = hub
    job = write_job(tmp_path / "job", tiny_tokenizer)
    shards = {f"data/{file.name}": file.read_bytes() for file in sorted(job.pairs.iterdir())}
    handler.main = "a" * 40
    handler.commits = {"a" * 40: shards | {"README.md": b"of no interest"}, "b" * 40: {}}
    environment = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def score(uri: str, output: str) -> tuple[int, str]:
        command = rgpt_batch("score", "-c", job.config, "-i", uri, "--output", tmp_path / output)
        with started(command, tmp_path / f"log-{output}", environment=environment) as process:
            return process.wait(), process.output

    uri = f"hf://{REPOSITORY}/data"
    code, said = score(uri, "scored")
    assert code == 0, said
    part = pq.read_table(tmp_path / "scored" / "part-000000.parquet")
    assert set(part["source_file"].to_pylist()) == {
        f"hf://{REPOSITORY}@{'a' * 40}/data/pairs-0.parquet"
    }
    assert json.loads((tmp_path / "scored" / "_SUCCESS").read_bytes())["num_rows"] == job.num_rows

    # Somebody pushes. What was planned stands; its commit can be named.
    handler.main = "b" * 40
    code, said = score(uri, "other")
    assert (code, "no such object" in said) == (2, True), said
    code, said = score(f"hf://{REPOSITORY}@{'a' * 40}/data/*.parquet", "scored")
    assert code == 0, said
    assert "0 in this run and 96 before" in said

    # What cannot be fetched is not taken for a damaged page: no row is rejected for it.
    # Enough are read that fewer than 20 units fail in a row, which would stop the job.
    handler.num_reads, handler.max_reads = 0, 12
    code, said = score(f"hf://{REPOSITORY}@{'a' * 40}/data", "failing")
    assert code == 3, said
    assert "the hub fails or does not answer" in said
    assert "UNREADABLE" not in said

    code, said = score("hf://datasets/owner/nothing-there/data", "none")
    assert code == 2, said
    assert "cannot be listed" in said


def test_hub_names_that_are_no_repository_are_refused() -> None:
    code = "from rgpt_batch.input.find import resolve_inputs; resolve_inputs(['hf://datasets/x'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ}
    )
    assert "ConfigError: hf://datasets/x: not a repository" in done.stderr
