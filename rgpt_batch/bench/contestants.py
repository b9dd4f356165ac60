"""The ways to the score that are measured against each other, each in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from rgpt_batch.bench.variants import CARD, EVAL, Variant
from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.engines.starts import starts_beside_others
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.records import Prompt, TokenizedPair
from rgpt_batch.scoring.model_files import on_this_machine
from rgpt_batch.scoring.score import to_score

_EVAL_BATCH_SIZE = 8
_END_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One timed pass over some pairs.

    Attributes:
        scores: Mean logprob per pair, nats, so that contestants can be compared.
    """

    seconds: float
    scores: list[float]


class _Scorer(Protocol):
    def __call__(self, pairs: Sequence[Any]) -> list[float]: ...


class Contestant:
    """A way to the score, in processes that wait between passes.

    Its processes begin to start at once. After an error there is nothing left but to close it.

    Args:
        variant: Which; not the pipeline.
        config: The variant's configuration.

    Raises:
        RgptBatchError: From all methods: a process failed or died; the message is the cause.
    """

    def __init__(self, variant: Variant, config: JobConfig) -> None:
        self._processes: list[_Process] = []
        try:
            for _ in range(variant.num_engines):
                self._processes.append(_Process(variant.method, config))
                if not starts_beside_others(config):
                    self._processes[-1].receive()
        except BaseException:
            self.close()
            raise
        self._is_waited_for = not starts_beside_others(config)

    def wait_until_ready(self) -> None:
        """Wait until every process has loaded its engine."""
        if not self._is_waited_for:
            for process in self._processes:
                process.receive()
            self._is_waited_for = True

    def score(self, pairs: Sequence[Prompt]) -> Measurement:
        """Score pairs once; the time leaves out sending them to the processes."""
        shares = _shares(pairs, len(self._processes))
        for process, share in zip(self._processes, shares, strict=True):
            process.send(list(share))
        started = time.perf_counter()
        for process in self._processes:
            process.send("go")
        scores = [score for process in self._processes for score in process.receive()]
        return Measurement(seconds=time.perf_counter() - started, scores=scores)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.ask_to_end()
        for process in self._processes:
            process.close()
        self._processes = []


def _shares(pairs: Sequence[Prompt], num_shares: int) -> list[Sequence[Prompt]]:
    """Cut into runs of about the same length, so that pairs of a document mostly stay together."""
    bounds = [len(pairs) * index // num_shares for index in range(num_shares + 1)]
    return [pairs[low:high] for low, high in itertools.pairwise(bounds)]


class _Process:
    def __init__(self, method: str, config: JobConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, method, config.model_dump()))
        self._process.start()
        theirs.close()
        self._is_idle = False

    def send(self, message: object) -> None:
        self._is_idle = False
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._death() from error

    def receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(answer, RgptBatchError):
            raise answer
        self._is_idle = True
        return answer

    def _death(self) -> RgptBatchError:
        self._process.join(timeout=_END_SECONDS)
        return RgptBatchError(f"its process died with exit code {self._process.exitcode}")

    def ask_to_end(self) -> None:
        if self._is_idle:
            with contextlib.suppress(OSError):
                self._connection.send(None)

    def close(self) -> None:
        # One that starts or scores would first finish that.
        if self._is_idle:
            self._process.join(timeout=_END_SECONDS)
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, method: str, settings: dict[str, Any]) -> None:
    try:
        scorer = _load(method, JobConfig.model_validate(settings))
        connection.send("ready")
        while (pairs := connection.recv()) is not None:
            if connection.recv() == "go":
                connection.send(scorer(pairs))
    except Exception as error:
        connection.send(RgptBatchError(f"{type(error).__name__}: {error}"))


def _load(method: str, config: JobConfig) -> _Scorer:
    if method in (CARD, EVAL):
        return _TransformersScorer(config, batch_size=1 if method == CARD else _EVAL_BATCH_SIZE)
    engine = create_engine(config)

    def score(pairs: Sequence[Prompt]) -> list[float]:
        answers = engine.score(pairs)
        return [to_score(*each).value for each in zip(pairs, answers, strict=True)]

    return score


class _TransformersScorer:
    """What one gets by running the published code: full-vocabulary log_softmax of every position.

    Batch size 1 is the model card's snippet; 8, padded on the right, is eval.py's loop.
    """

    def __init__(self, config: JobConfig, batch_size: int) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, config.model.dtype)
        is_invented = config.engine.vllm_args.get("load_format") == "dummy"
        name = on_this_machine(config.model, weights=not is_invented).name
        with torch.device(self._device):
            if is_invented:
                shape = AutoConfig.from_pretrained(name)
                model = AutoModelForCausalLM.from_config(shape, dtype=dtype)
            else:
                model = AutoModelForCausalLM.from_pretrained(
                    name,
                    dtype=dtype,
                    use_safetensors=None if config.model.allow_pickled_weights else True,
                )
        self._model: Any = model.eval().to(self._device)
        self._batch_size = batch_size

    def __call__(self, pairs: Sequence[TokenizedPair]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(pairs), self._batch_size):
            scores += self._score_batch(pairs[start : start + self._batch_size])
        return scores

    def _score_batch(self, pairs: Sequence[TokenizedPair]) -> list[float]:
        import torch

        width = max(len(pair.token_ids) for pair in pairs)
        tokens = np.zeros((len(pairs), width), dtype=np.int64)
        is_query = np.zeros((len(pairs), width), dtype=bool)
        mask = np.zeros((len(pairs), width), dtype=np.int64)
        for row, pair in enumerate(pairs):
            tokens[row, : len(pair.token_ids)] = pair.token_ids
            mask[row, : len(pair.token_ids)] = 1
            is_query[row, pair.query_start : len(pair.token_ids)] = True
        ids = torch.from_numpy(tokens).to(self._device)
        wanted = torch.from_numpy(is_query[:, 1:]).to(self._device)
        with torch.inference_mode():
            logits = self._model(
                ids[:, :-1], attention_mask=torch.from_numpy(mask[:, :-1]).to(self._device)
            ).logits
            logprobs = torch.log_softmax(logits, dim=-1)
            values = logprobs.gather(-1, ids[:, 1:, None])[..., 0].float()
            means = (values * wanted).sum(-1) / wanted.sum(-1)
        return [float(mean) for mean in means.cpu()]
