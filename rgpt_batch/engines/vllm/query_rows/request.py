"""The requests that carry pairs to vLLM; scheduler and workers read the query from one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from vllm import PoolingParams
from vllm.v1.engine import EngineCoreRequest

from rgpt_batch.records import LabelPrompt, TokenizedPair

# A key in PoolingParams.extra_kwargs. Its value is bytes: they are cheap to copy and to send.
_QUERY = "rgpt_batch_query"
TOKEN_BYTES = 4
# vLLM's own key: how many of the first tokens are of type 0. Without it all are.
_NUM_FIRST_TYPE = "compressed_token_type_ids"


def to_request(request_id: str, pair: TokenizedPair, *, read_cache: bool) -> Any:
    """Make the request. Its prompt lacks the pair's last token, which predicts nothing."""
    query = pair.token_ids[pair.query_start :]
    return _request(
        request_id, pair.token_ids[:-1], read_cache, extra_kwargs={_QUERY: query.tobytes()}
    )


def to_label_request(request_id: str, prompt: LabelPrompt, *, read_cache: bool, types: bool) -> Any:
    """Make the request for the logits of labels.

    Args:
        request_id: Differs between requests.
        prompt: All of its tokens are fed.
        read_cache: Whether it may use what is in the prefix cache.
        types: Whether the model tells the segments apart.
    """
    first = prompt.second_segment if types else None
    return _request(
        request_id,
        prompt.token_ids,
        read_cache,
        # Up to 0.30 vLLM leaves out the tanh inside a head as well where this is False. The softmax
        # or sigmoid that it would add to the logits is kept off by the configuration.
        use_activation=True,
        extra_kwargs=None if first is None else {_NUM_FIRST_TYPE: first},
    )


def query_of(params: Any) -> bytes:
    """Get the query's token ids, int32, from a request's PoolingParams."""
    query: bytes = params.extra_kwargs[_QUERY]
    return query


def _request(
    request_id: str, token_ids: npt.NDArray[np.int32], read_cache: bool, **params: Any
) -> Any:
    return EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=token_ids.tolist(),
        pooling_params=PoolingParams(
            task="classify", skip_reading_prefix_cache=not read_cache, **params
        ),
        sampling_params=None,
        mm_features=None,
        lora_request=None,
        cache_salt=None,
        arrival_time=0.0,
        data_parallel_rank=None,
    )
