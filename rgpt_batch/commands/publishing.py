"""The command that makes an output part of a table: publish."""

from __future__ import annotations

from dataclasses import asdict

import click

from rgpt_batch.commands.text import (
    OutputFolder,
    json_option,
    print_facts,
    print_json,
    warn_of_invented,
)

_MIB = 2**20


@click.command(
    short_help="Make a finished output part of a table: Delta, Iceberg or Parquet.",
    epilog="Example: rgpt-batch publish scored/ --to delta:s3://lake/scores "
    "--partition date=2026-11-27",
)
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option(
    "--to",
    "to",
    required=True,
    metavar="FORMAT:PLACE",
    help="delta:FOLDER, parquet:FOLDER (Hive-partitioned), paths or URIs; or "
    "iceberg:CATALOG.NAMESPACE.TABLE, with a catalog of pyiceberg's configuration.",
)
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    metavar="NAME=VALUE",
    help="Column with this value for all rows, by which a table that is made here is partitioned. "
    "May be repeated. [default: none]",
)
@click.option(
    "--target-mib",
    type=click.FloatRange(min=1),
    default=128,
    show_default=True,
    help="Size of a data file, MiB; several of them are held in memory.",
)
@click.option(
    "--catalog-property",
    "catalog_properties",
    multiple=True,
    metavar="KEY=VALUE",
    help="Setting of the Iceberg catalog, such as uri=sqlite:///catalog.db. May be repeated. "
    "Credentials belong into the environment (PYICEBERG_CATALOG__…). [default: pyiceberg's own]",
)
@json_option
def publish(
    output: str,
    to: str,
    partitions: tuple[str, ...],
    target_mib: float,
    catalog_properties: tuple[str, ...],
    as_json: bool,
) -> int:
    """Make a table's rows of a job those of its finished output, in one step.

    Rows are told by the column `fingerprint`, which publishing adds: an output that is published
    twice is there once, and one that has changed since replaces its earlier rows.
    """
    from rgpt_batch.publishing.publish import publish_output

    done = publish_output(
        output,
        to,
        partitions=_pairs(partitions, "--partition"),
        target_bytes=int(target_mib * _MIB),
        catalog_properties=_pairs(catalog_properties, "--catalog-property"),
    )
    warn_of_invented([output])
    if as_json:
        print_json({"to": to, **asdict(done)})
        return 0
    what = {
        "published": f"published in {done.table.num_files:,} files",
        "replaced": f"published in {done.table.num_files:,} files, in place of an earlier state",
        "unchanged": "there already; nothing was written",
    }
    print_facts(
        {
            "table": to,
            "rows": f"{done.num_rows:,}, {what[done.table.change]}",
            "fingerprint": done.fingerprint,
            "state": done.table.state,
        }
    )
    return 0


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    """Split NAME=VALUE; a message shows the name alone, since a value may be a secret."""
    pairs: dict[str, str] = {}
    for text in given:
        name, is_pair, value = text.partition("=")
        if not (name and is_pair):
            raise click.UsageError(f"{option} {name}: expected NAME=VALUE.")
        if name in pairs:
            raise click.UsageError(f"{option} {name} is given twice.")
        pairs[name] = value
    return pairs
