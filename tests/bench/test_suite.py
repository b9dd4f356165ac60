"""A benchmark run goes on without the engines that fail, and keeps what it has measured."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from rgpt_batch.bench.findings import Findings
from rgpt_batch.bench.shapes import TOKENIZER, find_shape, save_random_model
from rgpt_batch.bench.suite import Suite
from rgpt_batch.bench.table import to_markdown
from rgpt_batch.bench.variants import Variant
from rgpt_batch.bench.workload import Workload
from rgpt_batch.config.load import load_config
from tests.models import set_config

WORKLOADS = [
    Workload(document_tokens=20, query_tokens=4, queries_per_document=number) for number in (1, 2)
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_random_model(find_shape("llama2-7b-tiny"), tmp_path / "model", weights=True)


def suite(model: Path, variants: list[Variant], num_turns: int, *options: str) -> Suite:
    own = (f"model.name={model}", f"model.tokenizer={model / TOKENIZER}", "model.dtype=float32")
    return Suite(
        config=load_config(None, (*own, "protocol.max_length=128", *options)),
        shape=None,
        variants=variants,
        workloads=WORKLOADS,
        num_turns=num_turns,
        seconds_per_pass=0.05,
        budget_seconds=300,
    )


def run(
    model: Path,
    variants: list[Variant],
    keep: Callable[[Findings], None] = lambda findings: None,
    num_turns: int = 3,
) -> Findings:
    return suite(model, variants, num_turns).run(say=print, keep=keep)


def fake(name: str, num_engines: int = 1) -> Variant:
    return Variant(
        name=name,
        method="fake",
        num_engines=num_engines,
        engine={"fake_seconds_per_pair": 0.001},
        shares_documents=True,
    )


def num_turns(findings: Findings) -> dict[tuple[str, int], int]:
    return {
        (each.variant.name, each.workload.queries_per_document): len(each.turns)
        for each in findings.results
    }


def test_an_engine_that_is_killed_between_turns_leaves_the_others_measuring(model: Path) -> None:
    kept: list[str] = []

    def kill_first(findings: Findings) -> None:
        if not findings.results:
            return
        kept.append(to_markdown(findings, 1e9))
        if len(kept) == 1:
            victim = min(multiprocessing.active_children(), key=lambda process: process.pid or 0)
            victim.kill()
            victim.join()

    findings = run(model, [fake("killed"), fake("lives")], kill_first)
    assert num_turns(findings) == {("killed", 1): 1, ("lives", 1): 3, ("lives", 2): 3}
    assert findings.not_measured.keys() == {"killed"}
    reason = findings.not_measured["killed"]
    assert reason == f"in turn 2 of {WORKLOADS[0].label}: its process died with exit code -9"
    # What it had measured before stays, and every turn of the others was handed out to be kept.
    assert "| killed |" in kept[-1]
    assert len(kept) == 6
    assert multiprocessing.active_children() == []


def test_one_of_several_processes_that_dies_ends_its_variant_alone(model: Path) -> None:
    def kill_last(findings: Findings) -> None:
        children = multiprocessing.active_children()
        if len(children) == 3 and findings.results:
            victim = max(children, key=lambda process: process.pid or 0)
            victim.kill()
            victim.join()

    findings = run(model, [fake("lives"), fake("two", num_engines=2)], kill_last)
    assert num_turns(findings) == {("lives", 1): 3, ("two", 1): 1, ("lives", 2): 3}
    assert findings.not_measured.keys() == {"two"}


def test_an_engine_that_raises_while_it_is_warmed_up_leaves_the_others_measuring(
    model: Path,
) -> None:
    # Ids of the tokenizer that the model has no embedding for: transformers raises IndexError.
    small = save_random_model(find_shape("llama2-7b-tiny"), model.with_name("small"), weights=False)
    set_config(small, vocab_size=8)
    card = Variant(
        name="card",
        method="card",
        engine={"vllm_args": {"load_format": "dummy"}},
    )
    findings = run(small, [card, fake("lives")], num_turns=1)
    assert num_turns(findings) == {("lives", 1): 1, ("lives", 2): 1}
    assert findings.not_measured == {
        "card": f"in the warm-up for {WORKLOADS[0].label}: IndexError: index out of range in self"
    }


def test_a_run_without_an_engine_that_works_ends_with_their_reasons(model: Path) -> None:
    def kill_all(findings: Findings) -> None:
        for child in multiprocessing.active_children() if findings.results else ():
            child.kill()
            child.join()

    findings = run(model, [fake("one"), fake("other")], kill_all)
    assert num_turns(findings) == {("one", 1): 1, ("other", 1): 1}
    assert findings.not_measured.keys() == {"one", "other"}


def test_an_engine_that_does_not_start_is_told_with_its_cause(model: Path) -> None:
    # Refused before torch is imported, which would take 8 s.
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    reference = Variant(name="reference", method="transformers")
    findings = run(model, [reference, fake("lives")], num_turns=1)
    assert num_turns(findings) == {("lives", 1): 1, ("lives", 2): 1}
    assert "allow_pickled_weights=true" in findings.not_measured["reference"]


@pytest.mark.parametrize(
    ("option", "expected"), [("engine.kv_cache_bytes=67108864", 3), ("engine.max_num_seqs=8", 1)]
)
def test_engines_start_at_the_same_time_where_none_measures_free_memory(
    option: str, expected: int, model: Path
) -> None:
    alive: list[int] = []

    def say(line: str) -> None:
        if "ready" in line:
            alive.append(len(multiprocessing.active_children()))

    variants = [fake("first"), fake("two", num_engines=2)]
    suite(model, variants, 1, option).run(say=say, keep=lambda findings: None)
    # As many processes as there were when the first of the variants was ready.
    assert alive[0] == expected
    assert alive[-1] == 3
