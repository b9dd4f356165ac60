"""The command `import`: from what search engines leave to pairs that are ready for `score`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.commands.import_options import RULES, TABLES, output_options, run_option
from rgpt_batch.commands.signals import sigterm_unwinds
from rgpt_batch.commands.text import LocalPath, print_facts, print_json

if TYPE_CHECKING:
    from rgpt_batch.importing.import_pairs import ImportSummary
    from rgpt_batch.importing.readers.relations import Source


@click.group("import", epilog=RULES)
def import_group() -> None:
    """Write pairs for `score` from a run and a corpus, or from a data set."""


@import_group.command(
    epilog="Example: rgpt-batch import trec --run bm25.trec.gz --queries topics.tsv "
    "--corpus corpus.parquet --output pairs/"
)
@run_option
@click.option("--queries", required=True, help=f"Ids and texts of queries: {TABLES}.")
@click.option(
    "--corpus",
    required=True,
    help="Ids and texts of documents; formats as above.",
)
@output_options
def trec(run_path: str, queries: str, corpus: str, output: str, **options: Any) -> int:
    """Import a run, a table of queries and a corpus."""
    from rgpt_batch.importing.sources.trec import TrecSource

    return _import(TrecSource(run=run_path, queries=queries, corpus=corpus), output, **options)


@import_group.command(
    epilog="Example: rgpt-batch import beir scifact/ --run bm25.trec --output pairs/"
)
@click.argument("folder", type=LocalPath(exists=True, file_okay=False))
@click.option(
    "--run",
    "run_path",
    type=LocalPath(exists=True, dir_okay=False),
    help="Candidates; formats as for `import trec`. [default: what the qrels judge, which is "
    "good for a quick start, but not for measuring a reranker]",
)
@click.option(
    "--split", default="test", show_default=True, help="Of the qrels, if there is no run."
)
@output_options
def beir(folder: str, run_path: str | None, split: str, output: str, **options: Any) -> int:
    """Import a BEIR FOLDER (corpus.jsonl, queries.jsonl, qrels/)."""
    from rgpt_batch.importing.sources.beir import BeirSource

    return _import(BeirSource(folder=folder, run=run_path, split=split), output, **options)


@import_group.command(
    epilog="Example: rgpt-batch import msmarco --run run.dev.small.tsv --queries "
    "queries.dev.small.tsv --collection collection.tsv --output pairs/"
)
@click.option(
    "--top1000",
    type=LocalPath(exists=True, dir_okay=False),
    help="Candidates with their texts: qid, pid, query, passage. [default: --run, --queries and "
    "--collection]",
)
@click.option(
    "--run",
    "run_path",
    type=LocalPath(exists=True, dir_okay=False),
    help="Candidates: qid, pid, rank, or a TREC run. [default: --top1000]",
)
@click.option("--queries", help="queries.*.tsv: qid, query. [default: none]")
@click.option("--collection", help="collection.tsv: pid, passage. [default: none]")
@output_options
def msmarco(
    top1000: str | None,
    run_path: str | None,
    queries: str | None,
    collection: str | None,
    output: str,
    **options: Any,
) -> int:
    """Import MS MARCO's tab-separated files."""
    from rgpt_batch.importing.sources.msmarco import Top1000Source
    from rgpt_batch.importing.sources.trec import TrecSource

    source: Source
    if top1000 and not (run_path or queries or collection):
        source = Top1000Source(path=top1000)
    elif run_path and queries and collection and not top1000:
        source = TrecSource(run=run_path, queries=queries, corpus=collection)
    else:
        raise click.UsageError("Give --top1000, or --run with --queries and --collection.")
    return _import(source, output, **options)


@import_group.command(
    epilog="Example: rgpt-batch import pairs top1000.json --output pairs/; with ids alone: "
    "rgpt-batch import pairs ids.parquet --queries queries.parquet --corpus corpus/ --output pairs/"
)
@click.argument("pairs_path", metavar="PAIRS")
@click.option("--queries", help="Ids and texts of queries. [default: the texts in PAIRS]")
@click.option("--corpus", help="Ids and texts of documents. [default: the texts in PAIRS]")
@output_options
def pairs(
    pairs_path: str, queries: str | None, corpus: str | None, output: str, **options: Any
) -> int:
    """Import PAIRS with their texts, or ids and tables.

    Each of the three is Parquet (a file, a folder or a glob pattern), a folder of
    datasets.save_to_disk, .jsonl or .tsv with a header. RankingGPT's top1000.json is one, saved
    results of PyTerrier are another.
    """
    from rgpt_batch.importing.sources.pairs import PairSource

    return _import(PairSource(pairs=pairs_path, queries=queries, corpus=corpus), output, **options)


@import_group.command(
    epilog="Example: rgpt-batch import rankllm retrieve_results_dl19.json --output pairs/"
)
@click.argument("path", metavar="FILE", type=LocalPath(exists=True, dir_okay=False))
@output_options
def rankllm(path: str, output: str, **options: Any) -> int:
    """Import FILE, the JSON of RankGPT and rank_llm: queries with their candidates and texts.

    Both layouts are read: `query` with `hits`, and `query` with `candidates`; as one array or one
    object per line. A title goes before its text. Where candidates have no rank it is their place.
    """
    from rgpt_batch.importing.sources.rank_llm import RankLlmSource

    return _import(RankLlmSource(path=path), output, **options)


@import_group.command(
    "ir-datasets",
    epilog="Example: rgpt-batch import ir-datasets msmarco-passage/trec-dl-2019/judged "
    "--output pairs/",
)
@click.argument("name")
@click.option(
    "--run",
    "run_path",
    type=LocalPath(exists=True, dir_okay=False),
    help="Candidates; formats as for `import trec`. [default: the data set's scoreddocs]",
)
@click.option("--qrels", is_flag=True, help="Take what the qrels judge as candidates.")
@output_options
def ir_datasets(name: str, run_path: str | None, qrels: bool, output: str, **options: Any) -> int:
    """Import a data set of ir_datasets by its NAME.

    Needs the extra `ir-datasets`, which downloads what it lacks to ~/.ir_datasets.
    """
    from rgpt_batch.importing.sources.ir_data import IrDatasetsSource

    if run_path and qrels:
        raise click.UsageError("--run and --qrels both say what the candidates are. Give one.")
    candidates: Any = "qrels" if qrels else "scoreddocs"
    return _import(
        IrDatasetsSource(name=name, run=run_path, candidates=candidates), output, **options
    )


def _import(source: Source, output: str, *, quiet: bool, as_json: bool, **options: Any) -> int:
    from rgpt_batch.importing.import_pairs import ImportOptions, import_pairs

    def report(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    with sigterm_unwinds():
        summary = import_pairs(source, output, ImportOptions(**options), report=report)
    if as_json:
        print_json(_facts(summary, output))
    else:
        _print_summary(summary, output)
    if not summary.num_shards:
        click.echo(
            "rgpt-batch: nothing is written, because ids are unknown. Give the tables that belong "
            "to the candidates, or keep such pairs without text with --missing null.",
            err=True,
        )
    return summary.exit_code


def _facts(summary: ImportSummary, output: str) -> dict[str, Any]:
    return {
        "output": output,
        "exit_code": summary.exit_code,
        "num_pairs": summary.num_pairs,
        "num_queries": summary.num_queries,
        "num_shards": summary.num_shards,
        "missing_queries": asdict(summary.missing_queries),
        "missing_documents": asdict(summary.missing_documents),
        # Roles that files have no column for, such as the line of a row, have names of ours.
        "sources": {
            name: {"origin": table.origin, "columns": dict(table.columns)}
            for name, table in summary.relations.tables.items()
        },
    }


def _print_summary(summary: ImportSummary, output: str) -> None:
    candidates = summary.relations.candidates
    queries = summary.relations.queries or candidates
    documents = summary.relations.documents or candidates
    title = f"'{documents.columns['title']}' + ' ' + " if "title" in documents.columns else ""
    first_stage = [
        f"{name} from column '{candidates.columns[role]}'"
        for name, role in (("score", "first_stage_score"), ("rank", "first_stage_rank"))
        if role in candidates.columns
    ]
    facts = {
        "pairs": f"{summary.num_pairs:,} of {summary.num_queries:,} queries, {candidates.origin}",
        "queries": f"{queries.origin}, column '{queries.columns['query']}'",
        "documents": f"{documents.origin}, column {title}'{documents.columns['document']}'",
        "first stage": " and ".join(first_stage) or "unknown",
    }
    for what, missing in (
        ("query", summary.missing_queries),
        ("document", summary.missing_documents),
    ):
        if missing.num_ids:
            more = ", …" if missing.num_ids > len(missing.examples) else ""
            facts[f"no {what}"] = (
                f"{missing.num_pairs:,} pairs, distinct ids: {missing.num_ids:,}, "
                f"{', '.join(missing.examples)}{more}"
            )
    if summary.num_shards:
        facts["output"] = f"{output}, shards: {summary.num_shards:,}"
    print_facts(facts)
