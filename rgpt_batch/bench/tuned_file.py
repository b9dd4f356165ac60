"""What `tune` writes: a configuration for `score`, and as comments what was measured for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rgpt_batch.bench.tuning import Trial, Tuning
from rgpt_batch.config.options import JobConfig
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.storage.written_files import replacing

_HEADER = (
    "| changed | pairs/s | before | times as fast (range) | largest change of a score | taken |",
    "|---|---:|---:|---:|---:|---|",
)


def tuned_config(config: JobConfig, tuning: Tuning) -> JobConfig:
    """Return the configuration with the best settings; those that stayed are as they were."""
    return config.with_options(tuning.best.changes_from(tuning.start))


def write_tuned(path: Path, config: JobConfig, tuning: Tuning, hardware: str, sample: str) -> None:
    """Write the configuration, in one step.

    Args:
        path: A file, which is replaced.
        config: The one that was tuned.
        tuning: What was found so far.
        hardware: What was measured on.
        sample: What was scored, in words.

    Raises:
        ConfigError: The file cannot be written.
    """
    settings = tuned_config(config, tuning).model_dump(mode="json", exclude_defaults=True)
    # What counts from the working folder now would count from the file's, were it moved.
    for option in ("name", "tokenizer"):
        name = settings["model"].get(option)
        if name is not None and Path(name).is_dir():
            settings["model"][option] = str(Path(name).absolute())
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    comments = [
        f"Written by `rgpt-batch tune` on {time.strftime('%Y-%m-%d')}.",
        f"{hardware}; {versions}.",
        f"{sample} {_state(tuning)}",
        "",
        *table(tuning),
    ]
    with replacing(path) as staged:
        staged.write_text(
            "".join(f"# {line}".rstrip() + "\n" for line in comments)
            + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100),
            encoding="utf-8",
        )


def table(tuning: Tuning) -> list[str]:
    """Format all trials as lines of Markdown."""
    return [*_HEADER, *(_row(trial, tuning) for trial in tuning.trials)]


def _row(trial: Trial, tuning: Tuning) -> str:
    changes = ", ".join(f"{name}={value}" for name, value in trial.changes.items())
    change = trial.max_score_change
    cells = [
        changes,
        *(_median(s) for s in (trial.pairs_per_second, trial.reference_pairs_per_second)),
        f"{trial.gain:.2f} ({min(trial.ratios):.2f} to {max(trial.ratios):.2f})"
        if trial.ratios
        else "-",
        "-" if change is None else f"{change:.4f}",
        _verdict(trial, tuning),
    ]
    return f"| {' | '.join(cells)} |"


def _median(speeds: tuple[float, ...]) -> str:
    return f"{statistics.median(speeds):,.1f}" if speeds else "-"


def _verdict(trial: Trial, tuning: Tuning) -> str:
    if trial in tuning.taken:
        return "yes"
    if trial.not_measured is not None:
        return f"no: {trial.not_measured}"
    if not trial.is_faster:
        return "no"
    if tuning.may_take(trial):
        return "no: the other dtype is faster"
    limit = tuning.max_score_change
    return "no: scores change" + (f" by more than {limit:g}" if limit is not None else "")


def _state(tuning: Tuning) -> str:
    return "All settings were tried." if tuning.is_over else "Not all settings were tried."


def facts(tuning: Tuning) -> dict[str, Any]:
    """Return what was found, for programs."""
    return {
        "settings": tuning.best.changes_from(tuning.start),
        "start": tuning.start.options,
        "complete": tuning.is_over,
        "trials": list(_trials(tuning)),
    }


def _trials(tuning: Tuning) -> Iterator[dict[str, Any]]:
    for trial in tuning.trials:
        yield {
            "changes": trial.changes,
            "pairs_per_second": trial.pairs_per_second,
            "reference_pairs_per_second": trial.reference_pairs_per_second,
            "gain": trial.gain if trial.ratios else None,
            "max_score_change": trial.max_score_change,
            "not_measured": trial.not_measured,
            "taken": trial in tuning.taken,
        }
