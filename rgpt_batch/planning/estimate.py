"""What a job will cost: token counts of a sample of the input, and the time that follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import PreparedPair, Prompt, Rejection, ScorePair
from rgpt_batch.scoring.protocol import load_protocol

_MAX_SAMPLED_UNITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSample:
    """Token counts of some input rows.

    Attributes:
        mean_prompt_tokens: Per scorable row; 0 where there is none.
        mean_query_tokens: Per scorable row; 0 where there is none.
        mean_text_bytes: Of query and document, per sampled row.
        truncated_fraction: Share of the sampled rows whose document is cut.
        rejected_fraction: Share of the sampled rows that get no score.
    """

    num_rows: int
    mean_prompt_tokens: float
    mean_query_tokens: float
    mean_text_bytes: float
    truncated_fraction: float
    rejected_fraction: float


def sample_rows(manifest: Manifest, num_rows: int) -> Iterator[Sequence[ScorePair | Rejection]]:
    """Read rows that stand together, from units that are spread evenly over the plan.

    Args:
        manifest: Of at least one unit.
        num_rows: About how many in all.

    Yields:
        Some rows of a unit.
    """
    units = manifest.units[:: -(-len(manifest.units) // _MAX_SAMPLED_UNITS)]
    rows_per_unit = -(-num_rows // len(units))
    for unit in units:
        num_taken = 0
        for batch in read_pairs(unit, manifest.columns, source=False):
            pairs = batch.pairs[: rows_per_unit - num_taken]
            yield pairs
            num_taken += len(pairs)
            if num_taken >= rows_per_unit:
                break


def sample_tokens(config: JobConfig, manifest: Manifest, num_rows: int) -> TokenSample:
    """Tokenise rows from units that are spread evenly over the plan."""
    protocol = load_protocol(config.protocol, config.model)
    sampled: list[PreparedPair] = []
    num_bytes = 0
    for pairs in sample_rows(manifest, num_rows):
        num_bytes += sum(
            len(text.encode())
            for pair in pairs
            if isinstance(pair, ScorePair)
            for text in (pair.query, pair.document)
        )
        sampled += protocol.tokenize(pairs)
    prompts = [pair for pair in sampled if isinstance(pair, Prompt)]
    return TokenSample(
        num_rows=len(sampled),
        mean_prompt_tokens=sum(len(p.token_ids) for p in prompts) / max(1, len(prompts)),
        mean_query_tokens=sum(p.num_query_tokens for p in prompts) / max(1, len(prompts)),
        mean_text_bytes=num_bytes / max(1, len(sampled)),
        truncated_fraction=sum(p.num_dropped_document_tokens > 0 for p in prompts)
        / max(1, len(sampled)),
        rejected_fraction=(len(sampled) - len(prompts)) / max(1, len(sampled)),
    )
