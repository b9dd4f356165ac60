"""The jobs that rivals.py kills: one scorer, in the hands of one system each.

    python benchmarks/rival_jobs.py SYSTEM INPUT FOLDER --model MODEL [--on-bad-row fail|skip]

Each takes Parquet with a unique `id` and writes a score for each row. The command is the same
however often it has been started before. All of them score with rgpt_batch's fake engine: the same
prompts, the same seconds per row, the same scores.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch import JobConfig, load_config

# What is scored and recorded together, in every system.
ROWS_PER_UNIT = 20
SECONDS_PER_ROW = 0.005
NUM_WORKERS = 2
# Of Ray, for systems whose tasks read and write beside the two that score.
NUM_CPUS = 4

NEEDS = {
    "rgpt_batch-local": ("rgpt_batch",),
    "rgpt_batch-ray": ("rgpt_batch", "ray"),
    "ray-data": ("ray", "pyarrow"),
    "daft-delta": ("daft", "ray", "deltalake"),
    "daft-parquet": ("daft", "ray"),
}
SYSTEMS = tuple(NEEDS)
INSTALL = {"daft": "pip install 'daft==0.7.26'", "ray": "pip install 'ray[data]==2.60.0'"}

Row = tuple[str, float | None]


def require_packages(system: str) -> dict[str, str]:
    """Return the versions of what a system needs.

    Raises:
        SystemExit: A package is missing; says how to install it.
    """
    found = {}
    for package in NEEDS[system]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            if importlib.util.find_spec(package):
                found[package] = "here"
                continue
            how = INSTALL.get(package, f"pip install {package}")
            raise SystemExit(
                f"{system} needs {package}, which is not installed. It is no dependency of this "
                f"project: {how}"
            ) from None
    return found


def command(
    system: str, pairs: Path, folder: Path, model: Path, on_bad_row: str
) -> list[str | Path]:
    """Give the command line that runs a job, again and again.

    Args:
        system: One of SYSTEMS.
        pairs: Folder of the input.
        folder: For the output, and what a system keeps to resume.
        model: Folder of a tokenizer.
        on_bad_row: `fail`: what the system does unless told otherwise; `skip`: go on where it can.
    """
    if not system.startswith("rgpt_batch"):
        job: list[str | Path] = [sys.executable, Path(__file__), system, pairs, folder]
        return [*job, "--model", model, "--on-bad-row", on_bad_row]
    options = {
        **_scoring(model),
        "units.max_rows": ROWS_PER_UNIT,
        "executor.kind": system.removeprefix("rgpt_batch-"),
        "executor.num_workers": NUM_WORKERS if system.endswith("ray") else 1,
    }
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    score: list[str | Path] = [sys.executable, "-m", "rgpt_batch", "score", "-i", pairs]
    return [*score, "--output", folder / "output", *given]


def _scoring(model: Path) -> dict[str, Any]:
    return {
        "model.name": model,
        "engine.method": "fake",
        "engine.fake_seconds_per_pair": SECONDS_PER_ROW,
        "output.pass_through": "[id]",
    }


def scoring_config(model: Path) -> JobConfig:
    """Configure the scorer that all systems use."""
    return load_config(None, tuple(f"{name}={value}" for name, value in _scoring(model).items()))


def read_rows(system: str, folder: Path) -> Iterator[Row]:
    """Read what a reader of the output finds there: each row's id and score."""
    for table in _tables(system, folder / "output"):
        scores = table["score"].cast(pa.float32()).to_pylist()
        yield from zip(table["id"].to_pylist(), scores, strict=True)


def _tables(system: str, output: Path) -> Iterator[pa.Table]:
    if system == "daft-delta":
        from deltalake import DeltaTable

        if DeltaTable.is_deltatable(str(output)):
            yield DeltaTable(str(output)).to_pyarrow_table(columns=["id", "score"])
        return
    for path in sorted(output.glob("*.parquet")):
        try:
            yield pq.read_table(path, columns=["id", "score"])
        except pa.ArrowInvalid:
            # A killed job's, half written.
            continue


def run_ray_data(pairs: Path, folder: Path, model: Path, on_bad_row: str) -> None:
    """Score with Ray Data and its checkpoints, a feature in beta.

    Blocks are made as small as our units: a block is what is written and recorded as a whole. The
    records are kept after the end; by default they are deleted, and the same command would then
    score, and write, everything once more.
    """
    import ray
    from ray.data.checkpoint import CheckpointConfig

    from rgpt_batch import Scorer

    ray.init()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The input has some 116 bytes a row.
    context.target_max_block_size = ROWS_PER_UNIT * 116
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=str(folder / "checkpoint"),
        delete_checkpoint_on_success=False,
    )
    retries: dict[str, int] = {}
    if on_bad_row == "skip":
        context.max_errored_blocks = -1
        # By default both are without end.
        retries = {"max_restarts": 6, "max_task_retries": 2}
    dataset = ray.data.read_parquet(str(pairs)).map_batches(
        Scorer,
        fn_constructor_args=(scoring_config(model),),
        batch_format="pyarrow",
        batch_size=ROWS_PER_UNIT,
        concurrency=NUM_WORKERS,
        **retries,
    )
    dataset.write_parquet(str(folder / "output"))


def run_daft(system: str, pairs: Path, folder: Path, model: Path, on_bad_row: str) -> None:
    """Score with Daft and its checkpoints, which need its runner on Ray.

    Exactly-once is promised for tables of Iceberg and Delta; for plain Parquet, that what is done
    is not done again. A task, which is recorded as a whole, is a row group of the input.
    """
    import ray

    daft: Any = importlib.import_module("daft")
    ray.init()
    daft.set_runner_ray()
    daft.set_execution_config(
        enable_scan_task_split_and_merge=True,
        scan_tasks_min_size_bytes=1,
        scan_tasks_max_size_bytes=1,
    )
    store = daft.CheckpointStore(f"file://{folder / 'checkpoint'}")
    scorer = _daft_scorer(on_bad_row)(str(model))
    rows = daft.read_parquet(
        str(pairs / "*.parquet"), checkpoint=daft.CheckpointConfig(store=store, on="id")
    ).select(daft.col("id"), scorer.score(daft.col("query"), daft.col("document")).alias("score"))
    if system == "daft-delta":
        once = daft.IdempotentCommit(store=store, idempotence_key="the-job")
        rows.write_deltalake(str(folder / "output"), mode="append", checkpoint=once)
    else:
        rows.write_parquet(str(folder / "output"), write_mode="append")


def _daft_scorer(on_bad_row: str) -> Any:
    # Typed or not, as it is installed or not.
    daft: Any = importlib.import_module("daft")
    options = {"on_error": "log", "max_retries": 2} if on_bad_row == "skip" else {}

    class DaftScorer:
        """Our scorer as Daft wants it."""

        def __init__(self, model: str) -> None:
            from rgpt_batch import Scorer

            self._scorer = Scorer(scoring_config(Path(model)))

        @daft.method.batch(  # type: ignore[untyped-decorator]
            return_dtype=daft.DataType.float32(), batch_size=ROWS_PER_UNIT, **options
        )
        def score(self, queries: Any, documents: Any) -> list[float | None]:
            pairs = zip(queries.to_pylist(), documents.to_pylist(), strict=True)
            return [pair.score for pair in self._scorer.score(pairs)]

    return daft.cls(max_concurrency=NUM_WORKERS)(DaftScorer)


def main() -> None:
    """Run a rival's job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("system", choices=[name for name in SYSTEMS if "rgpt" not in name])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--on-bad-row", choices=["fail", "skip"], default="fail")
    given = parser.parse_args()
    if given.system == "ray-data":
        run_ray_data(given.pairs, given.folder, given.model, given.on_bad_row)
    else:
        run_daft(given.system, given.pairs, given.folder, given.model, given.on_bad_row)


if __name__ == "__main__":
    main()
