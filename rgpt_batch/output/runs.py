"""What the records of earlier runs say."""

from __future__ import annotations

from pydantic import ValidationError

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.output.store import Store
from rgpt_batch.planning.manifest import Manifest


def recorded_config(store: Store, manifest: Manifest) -> JobConfig:
    """Return the configuration of the last run of a job.

    Raises:
        ConfigError: There was none, or only another version understands its record.
    """
    runs = [run for run in store.read_runs() if run.get("fingerprint") == manifest.fingerprint]
    if not runs:
        raise ConfigError(
            f"{store.location}: no record of a run of its job, so no configuration to score by. "
            "Run the job's own command again."
        )
    try:
        return JobConfig.model_validate(runs[-1].get("config"))
    except ValidationError as error:
        found = error.errors()[0]
        raise ConfigError(
            f"{store.location}: the last run's configuration is of another version of rgpt-batch: "
            f"{'.'.join(map(str, found['loc']))}: {found['msg']}. Use that version, or run the "
            "job's own command again."
        ) from error
