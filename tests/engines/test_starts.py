"""Engines that share a GPU start one after the other; others do not wait."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.starts import turn_to_start
from tests.commands import fork_server


class Starter:
    """A process that has its turn until it is told to go on."""

    def __init__(self, gpu: str, gpus_per_worker: float, folder: Path, **engine: int) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        arguments = (theirs, gpu, gpus_per_worker, str(folder), engine)
        self.process = fork_server.process(_start, *arguments)
        assert self._connection.recv() == "waits"

    def has_its_turn(self, seconds: float) -> bool:
        return self._connection.poll(seconds)

    def finish(self) -> None:
        self._connection.send("go on")
        self.process.join()


def _start(
    connection: Connection, gpu: str, gpus_per_worker: float, folder: str, engine: dict[str, int]
) -> None:
    os.environ.update(CUDA_VISIBLE_DEVICES=gpu, TMPDIR=folder)
    config = JobConfig.model_validate(
        {
            "model": {"name": "m"},
            "engine": engine,
            "executor": {"gpus_per_worker": gpus_per_worker},
        }
    )
    connection.send("waits")
    with turn_to_start(config):
        connection.send("has its turn")
        connection.recv()


def test_the_second_engine_of_a_gpu_waits_until_the_first_has_started(tmp_path: Path) -> None:
    first = Starter("0", 0.5, tmp_path)
    assert first.has_its_turn(60)
    second = Starter("0", 0.5, tmp_path)
    assert not second.has_its_turn(1)
    first.finish()
    assert second.has_its_turn(60)
    second.finish()


def test_an_engine_that_dies_while_it_starts_gives_its_turn_away(tmp_path: Path) -> None:
    first = Starter("0", 0.5, tmp_path)
    assert first.has_its_turn(60)
    assert first.process.pid is not None
    os.kill(first.process.pid, signal.SIGKILL)
    second = Starter("0", 0.5, tmp_path)
    assert second.has_its_turn(60)
    second.finish()


@pytest.mark.parametrize(("gpu", "gpus_per_worker"), [("1", 0.5), ("0", 1)])
def test_engines_on_other_gpus_and_whole_gpus_do_not_wait(
    gpu: str, gpus_per_worker: float, tmp_path: Path
) -> None:
    first = Starter("0", 0.5, tmp_path)
    assert first.has_its_turn(60)
    other = Starter(gpu, gpus_per_worker, tmp_path)
    assert other.has_its_turn(60)
    other.finish()
    first.finish()


def test_engines_whose_cache_has_a_given_size_do_not_wait(tmp_path: Path) -> None:
    first = Starter("0", 0.5, tmp_path)
    assert first.has_its_turn(60)
    other = Starter("0", 0.5, tmp_path, kv_cache_bytes=2**26)
    assert other.has_its_turn(60)
    other.finish()
    first.finish()
