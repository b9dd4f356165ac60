"""T5 rerankers from a published folder to scored Parquet, with the configurations that we ship.

The models are random (0.1 M parameters). Each test runs the command line four times, some 10 s of
CPU each; the parity check loads two engines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from rgpt_batch.output.score_file import LABEL_SCHEMA, SCORE_SCHEMA, read_footer
from tests.conftest import ROOT, RunCli
from tests.conversion.checkpoints import FLAN_T5, T5, save, t5_tensors
from tests.conversion.references import t5_logits
from tests.conversion.vocabularies import save_t5_model
from tests.e2e.outputs import read_output
from tests.e2e.processes import parts

PAIRS = [
    ("when should a baby walk", "Most babies start to walk around 13 months, but some later."),
    (" two  blanks", "  Rows\tof blanks:    and    more.\n\nNew paragraph."),
    ("how many", "In 2019 there were 1,234 of them. " * 60),
    ("wie geht's", ""),
    ("what is {document}", "naïve café {query} and a tag </s> in the text"),
    ("when should a baby walk", "Most babies start to walk around 13 months, but some later."),
    ("  ", "A document without a query."),
]
MAX_LENGTH = 512
CUT_ROW, EMPTY_ROW = 2, 6
# Of a logit in float32, at most 5. Measured: 4e-6.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "model", "end", "labels"),
    [
        ("monot5-220m", T5, "Relevant:", ("▁false", "▁true")),
        ("rankt5-770m", FLAN_T5, "", ("<extra_id_10>",)),
    ],
)
def test_published_t5_is_converted_and_scored_as_its_description_says(
    run_cli: RunCli,
    tmp_path: Path,
    write_pairs: Callable[..., Path],
    name: str,
    model: dict[str, object],
    end: str,
    labels: tuple[str, ...],
) -> None:
    tensors = t5_tensors(model)
    source = save(tmp_path / "t5", model, tensors, num_shards=1, legacy=True)
    spiece = save_t5_model(source / "spiece.model", vocab_size=1000)
    pairs, output = write_pairs(PAIRS), tmp_path / "scored"

    def score(folder: Path, *options: str) -> tuple[int, str]:
        done = run_cli(
            *("score", "--config", ROOT / "configs" / f"{name}.yaml", "--model", folder),
            *("-i", pairs, "--output", output, "--executor", "local"),
            *("-o", "model.dtype=float32", "-o", "executor.gpus_per_worker=0", *options),
            *("-o", "output.max_rejected_fraction=0.5"),
        )
        return done.returncode, done.stderr

    code, said = score(source)
    assert code == 2
    assert f"rgpt-batch convert {source} {source}-converted" in said
    done = run_cli("convert", source, f"{source}-converted")
    assert done.returncode == 0, done.stderr
    code, said = score(Path(f"{source}-converted"), "--parity", "6")
    assert code == 0, said
    assert re.search(r"parity: 5 of 5 pairs scored, differences .* at most \d(\.\d)?e-0[678]", said)

    processor = sentencepiece.SentencePieceProcessor(model_file=str(spiece))
    ids = [processor.piece_to_id(label) for label in labels]
    if labels == ("<extra_id_10>",):
        ids = [1000 + 99 - 10]
    rows = read_output(output).to_pylist()
    assert list(rows[0]) == [*SCORE_SCHEMA.names, *LABEL_SCHEMA.names, "pair_hash"]
    for number, (row, (query, document)) in enumerate(zip(rows, PAIRS, strict=True)):
        if number == EMPTY_ROW:
            assert (row["score"], row["logit"], row["rejection"]) == (None, None, "EMPTY_QUERY")
            continue
        parts_of_text = f"Query: {query} Document: {document}".split("</s>")
        before = [token for part in parts_of_text for token in [*processor.encode(part), 1]][:-1]
        after = [*processor.encode(end), 1]
        prompt = before[: MAX_LENGTH - len(after)] + after
        logits = t5_logits(model, tensors, prompt)[ids].double().numpy()
        margin = logits[-1] - logits[0] if len(ids) == 2 else logits[0]
        assert row["logit"] == pytest.approx(margin, abs=TOLERANCE)
        expected = -np.logaddexp(0, -margin) if len(ids) == 2 else margin
        assert row["score"] == pytest.approx(expected, abs=TOLERANCE)
        assert row["sum_logprob"] is None
        assert row["num_dropped_query_tokens"] == 0
        assert row["num_dropped_document_tokens"] == len(before) + len(after) - len(prompt)
        assert (row["num_dropped_document_tokens"] > 0) == (number == CUT_ROW)
    footer, _ = read_footer(str(parts(output)[0]))
    assert (footer.engine, footer.score_kind) == ("encoder-decoder", "seq2seq")

    done = run_cli("verify", output, "--sample", "6")
    assert done.returncode == 0, done.stdout + done.stderr
