"""The request that carries a pair to vLLM; scheduler and workers read the query from it."""

from __future__ import annotations

from typing import Any

from vllm import PoolingParams
from vllm.v1.engine import EngineCoreRequest

from rgpt_batch.records import TokenizedPair

# A key in PoolingParams.extra_kwargs. Its value is bytes: they are cheap to copy and to send.
_QUERY = "rgpt_batch_query"
TOKEN_BYTES = 4


def to_request(request_id: str, pair: TokenizedPair, *, read_cache: bool) -> Any:
    """Make the request. Its prompt lacks the pair's last token, which predicts nothing."""
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
