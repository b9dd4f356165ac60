"""Hooks are looked up in classes; this needs no vLLM, but stand-ins for what it has had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest

from rgpt_batch.engines.vllm.hooks import Field, Hook, Method, missing


class Lookup31:
    def get_computed_blocks(self, request: Any) -> tuple[Any, int]:
        raise NotImplementedError


class Lookup33:
    def get_computed_blocks(
        self, request: Any, max_cache_hit_length: int | None = None
    ) -> tuple[Any, int]:
        raise NotImplementedError


class LookupByHashes:
    def get_computed_blocks(self, block_hashes: list[bytes], request: Any) -> tuple[Any, int]:
        raise NotImplementedError


class LookupOfNothing:
    @staticmethod
    def get_computed_blocks() -> None: ...


class LookupIsAField:
    get_computed_blocks = 0


@dataclass
class Params31:
    """The ids of every row, as vLLM 0.31 has it."""

    prompt_logprob_token_ids: list[int] | None = None


@dataclass
class Params32:
    """Ids for each row, as vLLM 0.32 and 0.33 have it, but for pydantic's part of Annotated."""

    prompt_logprob_token_ids: Annotated[np.ndarray, "list[list[int]]"] | None = None


@dataclass
class Params30:
    logprobs: int | None = None


@dataclass
class Request:
    request_id: str
    cache_salt: str | None
    priority: int = 0


@dataclass
class RequestOfMore(Request):
    tenant: str = ""

    def __init__(self, request_id: str, cache_salt: str | None, tenant: str) -> None: ...


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


@pytest.mark.parametrize("owner", [Lookup31, Lookup33])
def test_a_method_with_the_parameters_fits_whatever_follows(owner: type) -> None:
    members = (Method("get_computed_blocks", ("request",)),)
    assert missing([Hook(__name__, owner.__name__, members)]) == []


@pytest.mark.parametrize("owner", [LookupByHashes, LookupOfNothing, LookupIsAField, Params30])
def test_a_method_with_other_parameters_is_missing(owner: type) -> None:
    members = (Method("get_computed_blocks", ("request",)),)
    assert missing([Hook(__name__, owner.__name__, members)]) == [
        f"{__name__}.{owner.__name__}.get_computed_blocks(request)"
    ]


def test_a_field_that_takes_the_class_fits() -> None:
    members = (Field("prompt_logprob_token_ids", np.ndarray),)
    assert missing([Hook(__name__, "Params32", members)]) == []


@pytest.mark.parametrize("owner", [Params31, Params30])
def test_a_field_of_another_type_is_missing(owner: type) -> None:
    members = (Field("prompt_logprob_token_ids", np.ndarray),)
    assert missing([Hook(__name__, owner.__name__, members)]) == [
        f"{__name__}.{owner.__name__}.prompt_logprob_token_ids of type ndarray"
    ]


def test_a_class_that_is_made_with_the_keywords_fits() -> None:
    assert missing([Hook(__name__, "Request", keywords=("request_id", "cache_salt"))]) == []


@pytest.mark.parametrize(
    ("owner", "keywords"),
    [("RequestOfMore", "request_id, cache_salt"), ("Request", "request_id, cache_salt, arrival")],
)
def test_a_class_that_needs_more_or_takes_less_is_missing(owner: str, keywords: str) -> None:
    hooks = [Hook(__name__, owner, keywords=tuple(keywords.split(", ")))]
    assert missing(hooks) == [f"{__name__}.{owner}({keywords})"]
