"""Runs of a job as processes that start in milliseconds and can be killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess

# So that the fork server has them.
import transformers.models.auto.tokenization_auto

from rgpt_batch import JobConfig, run_job
from rgpt_batch.engines import create_engine
from rgpt_batch.errors import RgptBatchError
from tests.commands import fork_server

__all__ = ["create_engine", "start_job", "transformers"]


def start_job(
    config: JobConfig, inputs: list[str], output: str, log: str = os.devnull
) -> ForkServerProcess:
    """Start the job in this process's environment; its exit code is that of the command line."""
    arguments = (dict(os.environ), config.model_dump_json(), inputs, output, log)
    return fork_server.process(_run, *arguments)


def _run(
    environment: Mapping[str, str], config: str, inputs: list[str], output: str, log: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with open(log, "a") as stream:
        sys.stderr = sys.stdout = stream
        try:
            summary = run_job(JobConfig.model_validate_json(config), inputs, output)
            code = summary.exit_code
        except (RgptBatchError, OSError) as error:
            print(f"{type(error).__name__}: {error}")
            code = 1
    # As the command line does: threads that wait for a store do not hold the end up.
    os._exit(code)
