"""What a job has to do: its input, cut into units, and the identity of all that changes scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rgpt_batch.config.options import InputConfig, JobConfig, ModelConfig
from rgpt_batch.errors import ConfigError, ManifestMismatch
from rgpt_batch.importing.joined import (
    TextTables,
    join_tables,
    joined_columns,
    open_tables,
    tables_identity,
)
from rgpt_batch.importing.readers.relations import Relations
from rgpt_batch.input.find import resolve_inputs
from rgpt_batch.input.inspect import inspect_shards
from rgpt_batch.output import Store
from rgpt_batch.output.score_file import check_pass_through
from rgpt_batch.planning.manifest import (
    Manifest,
    differences,
    fingerprint,
    job_identity,
    shards_identity,
)
from rgpt_batch.planning.units import plan_units
from rgpt_batch.scoring.model_files import check_tokenizer, pinned
from rgpt_batch.storage.uris import check_location, is_inside, is_uri

OnChange = Literal["refuse", "overwrite"]


def plan_job(config: JobConfig, inputs: Sequence[str], output: str) -> tuple[JobConfig, Manifest]:
    """Find out what a job has to do, without writing anything.

    Returns:
        The configuration with the model pinned to a commit, and the plan.

    Raises:
        ConfigError: Input, output or configuration is wrong.
        ShardError: An input file cannot be used.
    """
    check_pass_through(config.output.pass_through)
    target = _absolute(output)
    paths = resolve_inputs(inputs)
    _check_apart(paths, inputs, target)
    shards = inspect_shards(paths, config.input, config.output.pass_through)
    config = config.model_copy(update={"model": _checked(config.model)})
    identity = job_identity(config, shards[0].columns, shards_identity(shards))
    manifest = Manifest(
        fingerprint=fingerprint(identity),
        identity=identity,
        columns=shards[0].columns,
        units=tuple(plan_units(shards, config.units)),
    )
    return config, manifest


def plan_joined_job(
    config: JobConfig, inputs: Sequence[str], tables: TextTables, output: str
) -> tuple[JobConfig, Manifest, Relations]:
    """Do the same for an input whose texts stand elsewhere; its units are known after the join."""
    check_pass_through(config.output.pass_through)
    relations = open_tables(inputs, tables, config)
    found = [t for t in (relations.candidates, relations.queries, relations.documents) if t]
    paths = [path for table in found for path in table.paths]
    _check_apart(paths, [table.origin for table in found], _absolute(output))
    config = config.model_copy(update={"model": _checked(config.model)})
    columns = joined_columns(config)
    identity = job_identity(config, columns, tables_identity(relations))
    planned = Manifest(
        fingerprint=fingerprint(identity), identity=identity, columns=columns, units=()
    )
    return config, planned, relations


def join_and_cut(
    planned: Manifest, relations: Relations, store: Store, config: JobConfig
) -> Manifest:
    """Join the tables and cut the pairs into units."""
    folder = join_tables(relations, planned.fingerprint, store.location, config)
    shards = inspect_shards(resolve_inputs([folder]), InputConfig(), config.output.pass_through)
    return replace(planned, units=tuple(plan_units(shards, config.units)))


def find_plan(store: Store, planned: Manifest, on_change: OnChange) -> Manifest | None:
    """Return the plan that is in force in the folder, if there is one.

    Raises:
        ManifestMismatch: It is another job's, and on_change is refuse.
    """
    try:
        found = store.load_manifest()
        if found is not None and found.fingerprint != planned.fingerprint:
            raise ManifestMismatch(
                f"{store.location}: holds the scores of another job:\n"
                f"{differences(found.identity, planned.identity)}\n"
                "Use another output folder, or --on-change overwrite to delete them."
            )
    except ManifestMismatch:
        if on_change == "refuse" or not store.has_manifest():
            raise
        store.clear()
        return None
    return found


def _checked(model: ModelConfig) -> ModelConfig:
    """Pin the model; say now, not on a worker, if its tokenizer cannot be used."""
    model = pinned(model)
    # Code of the repository's own may read any format; load_tokenizer finds out.
    if not model.trust_remote_code:
        check_tokenizer(*model.tokenizer_source)
    return model


def _check_apart(paths: Sequence[str], inputs: Sequence[str], target: str) -> None:
    """Raise ConfigError where input and output are in each other's way."""
    if inside := [path for path in paths if is_inside(path, target)]:
        raise ConfigError(f"{inside[0]}: an input file lies in the output folder {target}.")
    # A resumed job would find its own output among its input.
    folders = [
        name if is_uri(name) else str(Path(name).resolve())
        for name in inputs
        if is_uri(name) or Path(name).is_dir()
    ]
    if around := [folder for folder in folders if is_inside(target, folder)]:
        raise ConfigError(f"{target}: the output folder lies in the input folder {around[0]}.")


def _absolute(location: str) -> str:
    """Return a folder's full path, or its URI as it is.

    Raises:
        ConfigError: The URI cannot be used.
    """
    check_location(location)
    return location if is_uri(location) else str(Path(location).resolve())
