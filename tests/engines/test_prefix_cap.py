"""The prefix cache hides no row that is needed, by whichever arguments vLLM asks for a lookup.

The lookups here are vLLM's of two versions, as far as the length goes; test_query_rows.py has the
installed one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.engines.shared_prefixes import to_pair

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")

BLOCK = 16
# A prompt of 100 + 28 - 1 tokens, all of it in the cache; the first row needed is the 100th.
CONTEXT, QUERY = 100, 28


@dataclass
class Request:
    pooling_params: Any
    num_tokens: int
    block_hashes: list[int]


@pytest.fixture
def request_in_cache() -> Request:
    from rgpt_batch.engines.vllm.query_rows.request import to_request

    pair = to_pair(np.arange(CONTEXT), np.arange(QUERY))
    made = to_request("0", pair, read_cache=True)
    num_tokens = len(made.prompt_token_ids)
    return Request(made.pooling_params, num_tokens, [*range(num_tokens // BLOCK)])


def find_hit(request: Request, limit: int) -> int:
    return min(len(request.block_hashes), limit // BLOCK) * BLOCK


def get_computed_blocks_32(request: Request) -> tuple[str, int, int]:
    return "blocks", find_hit(request, request.num_tokens - 1), 0


def get_computed_blocks_33(
    request: Request, max_cache_hit_length: int | None = None
) -> tuple[str, int, int]:
    if max_cache_hit_length is None:
        max_cache_hit_length = request.num_tokens - 1
    return "blocks", find_hit(request, max_cache_hit_length), 0


def get_computed_blocks_of_more(
    request: Request, max_cache_hit_length: int | None = None, group: int = 0
) -> tuple[str, int, int]:
    return "blocks", get_computed_blocks_33(request, max_cache_hit_length)[1], group


Lookup = Callable[..., tuple[str, int, int]]
UNCAPPED = 112
CAPPED = 96


@pytest.mark.parametrize(
    ("look_up", "arguments", "keywords"),
    [
        (get_computed_blocks_32, (), {}),
        (get_computed_blocks_33, (), {}),
        (get_computed_blocks_33, (None,), {}),
        (get_computed_blocks_33, (126,), {}),
        (get_computed_blocks_33, (), {"max_cache_hit_length": 126}),
        (get_computed_blocks_of_more, (126,), {"group": 0}),
        (get_computed_blocks_of_more, (126, 0), {}),
    ],
)
def test_a_hit_ends_before_the_first_row_that_is_needed(
    look_up: Lookup, arguments: tuple[Any, ...], keywords: dict[str, Any], request_in_cache: Request
) -> None:
    from rgpt_batch.engines.vllm.query_rows.scheduler import capped

    assert look_up(request_in_cache, *arguments, **keywords) == ("blocks", UNCAPPED, 0)
    found = capped(look_up)(request_in_cache, *arguments, **keywords)
    assert found == ("blocks", CAPPED, 0)


def test_a_lower_limit_of_the_schedulers_stays(request_in_cache: Request) -> None:
    from rgpt_batch.engines.vllm.query_rows.scheduler import capped

    assert capped(get_computed_blocks_33)(request_in_cache, 40) == ("blocks", 32, 0)
    assert capped(get_computed_blocks_33)(request_in_cache, max_cache_hit_length=0)[1] == 0


def test_what_else_the_scheduler_passes_arrives(request_in_cache: Request) -> None:
    from rgpt_batch.engines.vllm.query_rows.scheduler import capped

    assert capped(get_computed_blocks_of_more)(request_in_cache, None, 3) == ("blocks", CAPPED, 3)
