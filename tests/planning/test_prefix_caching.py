"""The prefix cache is switched on where documents have several queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rgpt_batch.job.plan import plan_job
from rgpt_batch.planning.prefix_caching import decide_prefix_caching, queries_per_document
from tests.jobs import fake_config

WritePairs = Callable[..., Path]


def pairs(num_documents: int, num_queries: int) -> list[tuple[str | None, str | None]]:
    return [
        (f"query {q}", f"document {d}") for q in range(num_queries) for d in range(num_documents)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (pairs(5, 1), 1.0),
        (pairs(5, 4), 4.0),
        # Repeated pairs are scored once, with or without a cache.
        (pairs(5, 1) * 3, 1.0),
        ([("query", None), (None, "document")], 0.0),
    ],
)
def test_queries_per_document(
    rows: Sequence[tuple[str | None, str | None]],
    expected: float,
    write_pairs: WritePairs,
    tiny_tokenizer: Path,
    tmp_path: Path,
) -> None:
    path = write_pairs(rows)
    _, manifest = plan_job(fake_config(tiny_tokenizer), [str(path)], str(tmp_path / "out"))
    assert len(manifest.units) == 1
    assert queries_per_document(manifest.units, manifest.columns) == expected


@pytest.mark.parametrize(
    ("rows", "setting", "expected"),
    [
        (pairs(10, 1), None, False),
        (pairs(10, 2), None, True),
        # One document in ten has a second query.
        ([*pairs(10, 1), ("another query", "document 0")], None, False),
        (pairs(10, 1), True, True),
        (pairs(10, 2), False, False),
    ],
)
@pytest.mark.parametrize("method", ["auto", "query-rows"])
def test_the_cache_is_on_where_it_pays_or_as_told(
    rows: Sequence[tuple[str | None, str | None]],
    setting: bool | None,
    expected: bool,
    method: str,
    write_pairs: WritePairs,
    tiny_tokenizer: Path,
    tmp_path: Path,
) -> None:
    path = write_pairs(rows)
    overrides = [f"engine.method={method}"]
    if setting is not None:
        overrides.append(f"engine.prefix_caching={str(setting).lower()}")
    config = fake_config(tiny_tokenizer, *overrides)
    _, manifest = plan_job(config, [str(path)], str(tmp_path / "out"))
    decided = decide_prefix_caching(config, manifest.columns, manifest.units)
    assert decided.engine.prefix_caching is expected


def test_one_unit_does_not_decide_for_all(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    # The largest unit shares nothing; all others do.
    files = [write_pairs(pairs(40, 1), "a.parquet")]
    files += [write_pairs(pairs(8, 4), f"b{i}.parquet") for i in range(6)]
    config = fake_config(tiny_tokenizer, "engine.method=auto", "units.max_rows=40")
    _, manifest = plan_job(config, [str(file) for file in files], str(tmp_path / "out"))
    assert [unit.num_rows for unit in manifest.units] == [40, *[32] * 6]
    decided = decide_prefix_caching(config, manifest.columns, manifest.units)
    assert decided.engine.prefix_caching is True
    largest = decide_prefix_caching(config, manifest.columns, manifest.units[:1])
    assert largest.engine.prefix_caching is False


@pytest.mark.parametrize("num_queries", [1, 4])
def test_prompts_of_models_that_judge_begin_alike_whatever_the_documents(
    num_queries: int, write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    prompt = "protocol={name: prompt, prompt: [{text: '{query} {document}'}]}"
    score = "score={kind: label-tokens, relevant: 'yes'}"
    config = fake_config(tiny_tokenizer, "engine.method=auto", prompt, score)
    path = write_pairs(pairs(10, num_queries))
    _, manifest = plan_job(config, [str(path)], str(tmp_path / "out"))
    # The engine decides: on where the model is causal.
    decided = decide_prefix_caching(config, manifest.columns, manifest.units)
    assert decided.engine.prefix_caching is None


def test_other_engines_have_no_prefix_cache_to_decide_on(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    config = fake_config(tiny_tokenizer)
    _, manifest = plan_job(config, [str(write_pairs(pairs(10, 4)))], str(tmp_path / "out"))
    assert decide_prefix_caching(config, manifest.columns, manifest.units) is config
