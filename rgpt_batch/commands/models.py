"""The command models: which systems there are configurations for, and which of them fit here."""

from __future__ import annotations

import json
from typing import Any

import click

_PLACES = {"gpu": "a GPU", "cpu": "CPUs, in float32", None: "too large"}


@click.command(
    short_help="List the systems that there are configurations for.",
    epilog="Example: rgpt-batch models --json",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per system.")
def models(as_json: bool) -> int:
    """List the systems that there are configurations for, and what they need.

    `--config` takes a name of the first column. Whether a system fits here is reckoned from the
    memory of the largest GPU, or of the machine: it is no promise of speed.
    """
    from rgpt_batch.config.load import load_config
    from rgpt_batch.config.shipped import shipped_configs
    from rgpt_batch.config.systems import SYSTEMS
    from rgpt_batch.engines.memory import machine_memory

    memory = machine_memory()
    files = shipped_configs()
    rows: list[dict[str, Any]] = []
    for system in SYSTEMS:
        if system.config not in files:
            continue
        config = load_config(files[system.config])
        rows.append(
            {
                "config": system.config,
                "name": system.name,
                "kind": config.score.kind,
                "model": config.model.name,
                "num_parameters": system.num_parameters,
                "num_bytes_16_bit": system.num_bytes,
                "conversion": system.conversion,
                "tested": system.tested,
                "runs_on": memory.place_of(system.num_bytes),
                "file": str(files[system.config]),
            }
        )
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return 0
    for row in rows:
        _show(row)
    return 0


def _show(row: dict[str, Any]) -> None:
    size = f"{row['num_bytes_16_bit'] / 1e9:.1f} GB in 16 bit"
    click.echo(f"{row['config']:<22} {row['name']}, {row['kind']}")
    click.echo(
        f"{'':<22} {row['num_parameters'] / 1e6:,.0f} M parameters, {size}; "
        f"here: {_PLACES[row['runs_on']]}"
    )
    if row["conversion"]:
        click.echo(f"{'':<22} to convert: {row['conversion']}")
    click.echo(f"{'':<22} tested: {row['tested']}")
