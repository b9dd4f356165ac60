"""The footers of very many files, read by several processes: each takes some 0.4 ms of CPU.

    python -m rgpt_batch.input.many_footers < paths and options, JSON > what the footers say, JSON

A process of its own, and none of multiprocessing's: these run the caller's script once more, which
need not be made for that.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from rgpt_batch.config.options import InputConfig
from rgpt_batch.errors import ShardError, StorageError
from rgpt_batch.input.inspect import Shard, inspect_each

_MAX_PROCESSES = 8
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class _Question:
    paths: list[str]
    config: InputConfig
    pass_through: list[str]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the footers say, in the order of the paths: a shard, or why it cannot be used.

    Attributes:
        failure: Why nothing can be said, since the storage fails.
    """

    outcomes: list[Shard | str]
    failure: str | None = None
    is_transient: bool = False


_QUESTION = TypeAdapter(_Question)
_ANSWER = TypeAdapter(_Answer)


def inspect_in_processes(
    paths: Sequence[str], config: InputConfig, pass_through: Sequence[str], least_files: int
) -> list[Shard | ShardError]:
    """Read and check the footers of files.

    Args:
        paths: The files.
        config: How they are read.
        pass_through: Columns that are copied.
        least_files: How many files are worth a process.

    Raises:
        StorageError: The storage fails, or a process died.
    """
    num_cores = len(os.sched_getaffinity(0))
    num_processes = max(1, min(_MAX_PROCESSES, num_cores, len(paths) // least_files))
    bounds = [len(paths) * index // num_processes for index in range(num_processes + 1)]
    questions = [
        _Question(list(paths[low:high]), config, list(pass_through))
        for low, high in itertools.pairwise(bounds)
    ]
    with ThreadPoolExecutor(num_processes) as pool:
        answers = list(pool.map(_ask, questions))
    for answer in answers:
        if answer.failure is not None:
            raise StorageError(answer.failure, is_transient=answer.is_transient)
    return [
        ShardError(outcome) if isinstance(outcome, str) else outcome
        for answer in answers
        for outcome in answer.outcomes
    ]


def _ask(question: _Question) -> _Answer:
    # This package, and nothing that lies in the working folder.
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=_QUESTION.dump_json(question),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        raise StorageError(
            f"a process that reads footers ended with exit code {done.returncode}; see what it "
            "printed. Check the machine's memory, then run the same command again.",
            is_transient=True,
        )
    return _ANSWER.validate_json(done.stdout)


def _answer(question: _Question) -> _Answer:
    try:
        outcomes = inspect_each(question.paths, question.config, question.pass_through)
    except StorageError as error:
        return _Answer([], str(error), error.is_transient)
    return _Answer([str(each) if isinstance(each, ShardError) else each for each in outcomes])


if __name__ == "__main__":
    # What is printed on the way is no answer.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        answer = _answer(_QUESTION.validate_json(sys.stdin.buffer.read()))
        stream.write(_ANSWER.dump_json(answer))
