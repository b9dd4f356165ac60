"""Score in a process of its own whose model is shared by two ranks.

vLLM reads its environment once. This process is a fork, and so are its ranks.
"""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from tests.commands.start import run

# Else every rank wants a NUMA node, and a thread for each core.
ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def score_on_two_ranks(
    config: JobConfig, prompts: Sequence[Any], *, before: Sequence[Any] = ()
) -> list[Any]:
    """Return an engine's answers.

    Args:
        config: Its engine.num_ranks is 2.
        prompts: To be scored in one call.
        before: What the engine scores first; nobody asks what comes of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "question", Path(folder) / "answer"
        question.write_bytes(pickle.dumps((config, list(before), list(prompts))))
        done = run(
            [sys.executable, "-m", "tests.engines.two_ranks", question, answer],
            environment=ENVIRONMENT,
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = pickle.loads(answer.read_bytes())
        return answers


def main(question: Path, answer: Path) -> None:
    from vllm.v1.executor import multiproc_executor

    # On CPU vLLM would start each rank anew, and it would import vLLM: 13 s. Here ranks are forks.
    multiproc_executor.get_mp_context = functools.partial(multiprocessing.get_context, "fork")
    config, before, prompts = pickle.loads(question.read_bytes())
    engine = create_engine(config)
    if before:
        engine.score(before)
    answers = engine.score(prompts)
    engine.close()
    answer.write_bytes(pickle.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
