"""Fixtures that more than one folder of tests needs: tiny models, the demo model, pairs, the CLI.

Everything is real: models are random but loaded by the real libraries, the CLI runs as a process.
"""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# OpenMP's threads wait for each other in a loop. On busy cores that doubles the CPU seconds of a
# model and takes five times as long: 2 cores at load 10, 18 s and 50 s, without it 8 s and 15 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# vLLM would give each engine a thread for each core, and tiny models only wait for them: 61 s of
# CPU for tests/golden/test_batching.py, so 48 to 55 s.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

# Compiled modules are kept whatever the shell asks for: without that every process compiles all of
# ours anew, and pytest's rewriting of the tests takes 20 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from tests.commands import start as commands  # noqa: E402
from tests.models import save_tiny_bloom, save_tiny_llama, save_tiny_tokenizer  # noqa: E402
from tests.users import not_root  # noqa: E402

# Fixtures that several folders of tests use.
pytest_plugins = ("tests.jobs", "tests.rerankers", "tests.servers.s3")

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small byte-level BPE tokenizer, trained on the demo's text."""
    return save_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama with its tokenizer."""
    return save_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_bloom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Bloom whose head is its embeddings."""
    return save_tiny_bloom(tmp_path_factory.mktemp("bloom"), own_head=False)


@pytest.fixture(scope="session")
def tiny_bloom_with_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Bloom that stores an lm_head.weight of its own."""
    return save_tiny_bloom(tmp_path_factory.mktemp("bloom-head"), own_head=True)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of SmolLM2-135M, converted once and cached."""
    from demo_model import DEFAULT_FOLDER, main

    DEFAULT_FOLDER.parent.mkdir(exist_ok=True)
    # Processes that share the tests share the folder too.
    with DEFAULT_FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        main(DEFAULT_FOLDER)
    return DEFAULT_FOLDER


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Write a Parquet file of pairs below tmp_path and return its path."""

    def write(
        pairs: Sequence[tuple[str | None, str | None]] | int,
        name: str = "pairs.parquet",
        extra: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Path:
        if isinstance(pairs, int):
            pairs = [(f"query number {i % 7}", f"document {i} of many") for i in range(pairs)]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "query_id": pa.array([f"q{i % 7}" for i in range(len(pairs))], pa.string()),
                "doc_id": pa.array([f"d{i}" for i in range(len(pairs))], pa.string()),
                "query": pa.array([query for query, _ in pairs], pa.string()),
                "document": pa.array([document for _, document in pairs], pa.string()),
                **(extra or {}),
            }
        )
        pq.write_table(table, path, **options)
        return path

    return write


@pytest.fixture
def unlistable() -> Iterator[Path]:
    """A folder with a file, one that this user may not read, and a folder it may not list."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    pairs = {"query_id": ["q"], "doc_id": ["d"], "query": ["a b"], "document": ["c d"]}
    (root / "closed").mkdir()
    for name in ("pairs.parquet", "secret.parquet", "closed/pairs.parquet"):
        pq.write_table(pa.table(pairs), root / name)
    (root / "secret.parquet").chmod(0o000)
    (root / "closed").chmod(0o000)
    try:
        with not_root():
            yield root
    finally:
        (root / "closed").chmod(0o755)
        shutil.rmtree(root)


@pytest.fixture
def run_cli(tmp_path: Path) -> Iterator[RunCli]:
    """Run `rgpt-batch` to its end in a process of its own, without torch, which few need."""

    def run(
        *arguments: str | Path, timeout: float = 300, without_torch: bool = True
    ) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": commands.WITHOUT_TORCH} if without_torch else {}
        command = commands.rgpt_batch(*arguments)
        return commands.run(command, timeout=timeout, environment=environment)

    yield run


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say which tests stay in one process; see tests/sharing.py."""
    from tests.sharing import ByModule

    return ByModule(config, log)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from all that was imported.

    When vLLM ends, it takes back what was frozen and collects garbage six times, 0.5 s of CPU each:
    with that, a tiny engine's start and end took 4.5 s, without 1.2 s. So nothing is taken back.
    """
    gc.unfreeze = lambda: None
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, start with what waits the longest.

    The quick tests then fill the end.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        names = ("ray", "vllm")
        items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in names])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give way to processes that have Ray's tests: Ray starts in time or not at all."""
    from tests.sharing import RAY, group

    in_turn = "PYTEST_XDIST_WORKER" in os.environ
    if in_turn and not group(item.nodeid.split("::")[0]).startswith(RAY):
        os.setpriority(os.PRIO_PROCESS, 0, 10)
