"""What every row gets: its score, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Sequence

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import (
    Answer,
    PreparedPair,
    Prompt,
    QueryLogprobs,
    ReusedScore,
    RowResult,
)
from rgpt_batch.scoring.score import to_score


def to_results(
    pairs: Sequence[PreparedPair],
    answers: Sequence[Answer],
    hashes: Sequence[bytes | None],
    where: str = "",
) -> list[RowResult]:
    """Give every row its score or its rejection.

    Args:
        pairs: One per row.
        answers: The engine's, one for each prompt among the pairs, in order.
        hashes: Of the pairs' texts, one per row; None where it is not wanted.
        where: Stands before an error's message.

    Raises:
        EngineOutputError: Their number is wrong, or an answer is; see to_score.
    """
    num_prompts = sum(isinstance(pair, Prompt) for pair in pairs)
    if len(answers) != num_prompts:
        raise EngineOutputError(
            f"{where}the engine answered {len(answers)} of {num_prompts} pairs."
        )
    waiting = iter(answers)
    results = []
    for pair, pair_hash in zip(pairs, hashes, strict=True):
        if isinstance(pair, Prompt):
            answer = next(waiting)
            logprobs = answer if isinstance(answer, QueryLogprobs) else None
            results.append(
                RowResult(outcome=to_score(pair, answer), logprobs=logprobs, pair_hash=pair_hash)
            )
        elif isinstance(pair, ReusedScore):
            results.append(
                RowResult(outcome=pair.score, logprobs=pair.logprobs, pair_hash=pair_hash)
            )
        else:
            results.append(RowResult(outcome=pair))
    return results
