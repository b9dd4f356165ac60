"""How a pair is handed to vLLM, and read again by the scheduler and by the workers."""

from __future__ import annotations

from typing import Any

from vllm import PoolingParams
from vllm.v1.engine import EngineCoreRequest

from rgpt_batch.records import TokenizedPair

# Key in PoolingParams.extra_kwargs. The value is bytes, which are cheap to copy and to send.
_QUERY = "rgpt_batch_query"
TOKEN_BYTES = 4


def to_request(request_id: str, pair: TokenizedPair, *, read_cache: bool) -> Any:
    """Make the request: the prompt lacks the last token, which nothing has to read."""
    query = pair.token_ids[pair.query_start :]
    return EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=pair.token_ids[:-1].tolist(),
        pooling_params=PoolingParams(
            task="classify",
            skip_reading_prefix_cache=not read_cache,
            extra_kwargs={_QUERY: query.tobytes()},
        ),
        sampling_params=None,
        mm_features=None,
        lora_request=None,
        cache_salt=None,
        arrival_time=0.0,
        data_parallel_rank=None,
    )


def query_of(params: Any) -> bytes:
    """Get the query's token ids, int32, from a request's PoolingParams."""
    query: bytes = params.extra_kwargs[_QUERY]
    return query
