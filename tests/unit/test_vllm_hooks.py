"""Hooks are looked up by name; this needs no vLLM."""

from __future__ import annotations

from rgpt_batch.engines.vllm_hooks import Hook, missing


def test_what_is_there_is_not_missing() -> None:
    assert missing([Hook("pathlib", "Path", ("exists", "parts"))]) == []


def test_fields_without_a_default_count() -> None:
    assert missing([Hook("rgpt_batch.records", "Segment", ("path", "num_rows"))]) == []


def test_missing_hooks_are_named() -> None:
    hooks = [
        Hook("pathlib", "Path", ("exists", "teleport")),
        Hook("pathlib", "Road"),
        Hook("no_such_module.at_all", "Class", ("member",)),
    ]
    assert missing(hooks) == [
        "pathlib.Path.teleport",
        "pathlib.Road",
        "no_such_module.at_all.Class",
    ]
