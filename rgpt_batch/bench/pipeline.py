"""The whole job as a way to the score."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rgpt_batch.bench.workload import write_pairs
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.job.run_job import run_job
from rgpt_batch.records import ScorePair


def run_pipeline(config: JobConfig, texts: Sequence[ScorePair]) -> float:
    """Run the whole job, Parquet to Parquet.

    Returns:
        Seconds from the first unit's first byte to the last commit, as the record of the run tells;
        without the start of Ray and of the engine.

    Raises:
        RgptBatchError: The job did not score everything.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.parquet"
        write_pairs(texts, source)
        summary = run_job(config, [str(source)], f"{folder}/scored", quiet=True)
        if summary.exit_code:
            raise RgptBatchError("; ".join(summary.problems))
        (record,) = Path(folder, "scored", "_rgpt", "runs").glob("*.json")
        units = json.loads(record.read_text())["units"]
    begin = min(unit["started_at"] for unit in units)
    return float(max(unit["finished_at"] for unit in units) - begin)
