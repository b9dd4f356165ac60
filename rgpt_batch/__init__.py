"""Corpus-scale query-likelihood reranking: Parquet pairs in, scored Parquet out.

    from rgpt_batch import load_config, run_job

    config = load_config("configs/bloom-560m-h100.yaml")
    summary = run_job(config, ["pairs/"], "scored/")

These names stay: the functions, and all classes that they take and return. `rgpt_batch.errors` has
what they raise, `rgpt_batch.config.options` the sections of a JobConfig. They are loaded on first
use, so importing the package needs neither ray, vllm nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rgpt_batch.checks.parity import Parity
    from rgpt_batch.checks.verify import Verification, verify_output
    from rgpt_batch.config.load import load_config
    from rgpt_batch.config.options import JobConfig
    from rgpt_batch.importing.joined import TextTables
    from rgpt_batch.job.run import JobSummary
    from rgpt_batch.job.run_job import run_job
    from rgpt_batch.job.scorer import ScoredPair, Scorer
    from rgpt_batch.ranking.top import TopPairs
    from rgpt_batch.records import UnitFailure

__version__ = "0.1.0"

__all__ = [
    "JobConfig",
    "JobSummary",
    "Parity",
    "ScoredPair",
    "Scorer",
    "TextTables",
    "TopPairs",
    "UnitFailure",
    "Verification",
    "load_config",
    "run_job",
    "verify_output",
]

_HOMES = {
    "JobConfig": "config.options",
    "JobSummary": "job.run",
    "Parity": "checks.parity",
    "ScoredPair": "job.scorer",
    "Scorer": "job.scorer",
    "TextTables": "importing.joined",
    "TopPairs": "ranking.top",
    "UnitFailure": "records",
    "Verification": "checks.verify",
    "load_config": "config.load",
    "run_job": "job.run_job",
    "verify_output": "checks.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rgpt_batch' has no attribute '{name}'")
    return getattr(importlib.import_module(f"rgpt_batch.{_HOMES[name]}"), name)
