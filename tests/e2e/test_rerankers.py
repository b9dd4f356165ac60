"""Models that judge pairs, from the command line: real vLLM, converted checkpoints, Parquet.

Seven commands, of which three start vLLM: some 150 s of CPU time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.job.run import EXIT_INCOMPLETE
from rgpt_batch.output.score_file import read_footer
from tests.conftest import RunCli
from tests.conversion.checkpoints import ADAPTER, BERT, LLAMA
from tests.conversion.references import bert_logits, rankllama_logit
from tests.e2e.outputs import identities, read_output
from tests.e2e.processes import parts
from tests.models import demo_texts
from tests.rerankers import Reranker, job_options

pytestmark = pytest.mark.vllm

# Of a logit; see tests/engines/judging.py. A score of two labels moves no further than its margin.
TOLERANCE = 1e-4


# Logits of a query and a document, from the published files alone: one, or those of not relevant
# and of relevant.
Logits = Callable[[str, str], Sequence[float]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(run_cli: RunCli) -> Run:
    """Run a command that has to end with a given exit code."""

    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        # vLLM is loaded in up to two processes, by 20 seconds of CPU time each.
        done = run_cli(*arguments, timeout=900)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def _monobert_logits(model: Reranker) -> Logits:
    from tokenizers import BertWordPieceTokenizer

    vocabulary = model.folder.parent / "published" / "vocab.txt"
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)

    def logits(query: str, document: str) -> Sequence[float]:
        ids = tokenizer.encode(query).ids[:-1][:65]
        sep = tokenizer.token_to_id("[SEP]")
        second = tokenizer.encode(document, add_special_tokens=False).ids[: 512 - len(ids) - 2]
        prompt = [*ids, sep, *second, sep]
        found: list[float] = bert_logits(BERT, model.tensors, prompt, len(ids) + 1).tolist()
        return found

    return logits


def _rankllama_logits(model: Reranker) -> Logits:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(
        model_file=str(model.folder.parent / "base" / "tokenizer.model")
    )

    def logits(query: str, document: str) -> Sequence[float]:
        first, second = pieces.encode(f"query: {query}"), pieces.encode(f"document: {document}")
        prompt = [pieces.bos_id(), *first[:32], pieces.bos_id(), *second[:161]]
        return [rankllama_logit(LLAMA, model.tensors, ADAPTER, model.factors, prompt)]

    return logits


def _pairs() -> list[tuple[str | None, str | None]]:
    texts = [text for text in demo_texts() if text]
    pairs: list[tuple[str | None, str | None]] = [
        (texts[number % 5], " ".join(texts[number : number + 1 + 3 * (number % 4)]))
        for number in range(40)
    ]
    # A query beyond its limit, an empty document, three that cannot be scored, and a repetition.
    return [*pairs, (texts[0] * 20, texts[1]), ("a query", ""), ("", "a"), (None, "a"), pairs[0]]


def test_monobert_scores_as_published_passes_its_checks_and_resumes(
    tiny_monobert: Reranker, run: Run, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    pairs, output = _pairs(), tmp_path / "scored"
    command = _score(tiny_monobert, write_pairs(pairs), output)
    done = run(*command, "--parity", "20")
    assert "20 of 20 pairs scored, differences to the float32 reference at most" in done.stderr
    _check(output, pairs, _monobert_logits(tiny_monobert))

    # Once more there is nothing to do.
    before = identities(output)
    run(*command)
    assert identities(output) == before

    verified = run("verify", output, "--sample", "30")
    assert "all is well" in verified.stdout
    assert verified.stdout.count(" nats") == 1

    # Wrong logits are found, though the scores are right for them.
    _shift_logits(parts(output)[0])
    wrong = run("verify", output, "--sample", "60", code=EXIT_INCOMPLETE)
    assert "has logit" in wrong.stdout and "float32 reference gives" in wrong.stdout


def test_rankllama_scores_as_published_and_its_logits_are_reused(
    tiny_rankllama: Reranker, run: Run, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    pairs, output = _pairs(), tmp_path / "scored"
    run(*_score(tiny_rankllama, write_pairs(pairs), output))
    _check(output, pairs, _rankllama_logits(tiny_rankllama))

    # Of an input with one more row, the others keep their logits.
    extended = write_pairs([("what is new", "this is"), *pairs], "extended.parquet")
    more = tmp_path / "more"
    reused = run(*_score(tiny_rankllama, extended, more), "--reuse", output)
    table, found = read_output(output), read_output(more)
    num_scored = table.num_rows - table["score"].null_count
    assert f"reused {num_scored} of {len(pairs) + 1}" in reused.stderr
    compared = [name for name in table.column_names if name not in ("query_id", "doc_id")]
    assert found.slice(1).select(compared).equals(table.select(compared))

    verified = run("verify", more, "--sample", "30")
    assert "all is well" in verified.stdout
    # A logit has no unit.
    assert " nats" not in verified.stdout


def _score(model: Reranker, shard: Path, output: Path) -> list[str | Path]:
    command: list[str | Path] = ["score", "-c", model.config_file, "-i", shard]
    command += ["--executor", "local", "--output", output]
    options = job_options(model.folder, "auto") | {"units.max_rows": "16"}
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    return command


def _check(output: Path, pairs: Sequence[tuple[str | None, str | None]], judge: Logits) -> None:
    for part in parts(output):
        footer, _ = read_footer(str(part))
        assert (footer.score_kind, footer.engine) == ("classification", "pooling")
    table = read_output(output)
    assert table["doc_id"].to_pylist() == [f"d{row}" for row in range(len(pairs))]
    assert table.schema.field("logit").type == pa.float32()
    assert table.schema.field("num_dropped_query_tokens").type == pa.int32()
    assert table["sum_logprob"].null_count == len(pairs)
    scored = 0
    for row, (query, document) in zip(table.to_pylist(), pairs, strict=True):
        if not query:
            assert row["rejection"] == ("NULL_QUERY" if query is None else "EMPTY_QUERY")
            assert row["score"] is row["logit"] is row["num_dropped_query_tokens"] is None
            continue
        scored += 1
        assert document is not None
        logits = judge(query, document)
        margin = logits[-1] - logits[0] if len(logits) == 2 else logits[0]
        score = -np.logaddexp(0.0, -margin) if len(logits) == 2 else margin
        assert row["logit"] == pytest.approx(margin, abs=TOLERANCE)
        assert row["score"] == pytest.approx(score, abs=TOLERANCE)
        assert row["rejection"] is None
    assert scored == len(pairs) - 2
    dropped = table["num_dropped_query_tokens"].to_pylist()
    assert dropped[40] > 0 == dropped[41]
    assert max(table["num_dropped_document_tokens"].drop_null().to_pylist()) > 0
    assert table["logit"][0] == table["logit"][44]


def _shift_logits(part: Path) -> None:
    """Move all logits of two labels by 0.5, and the scores with them."""
    table = pq.read_table(part)
    logits = [None if logit is None else logit - 0.5 for logit in table["logit"].to_pylist()]
    scores = [None if logit is None else -np.logaddexp(0.0, -logit) for logit in logits]
    for name, values in (("logit", logits), ("score", scores)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, pa.float32()))
    pq.write_table(table, part)
