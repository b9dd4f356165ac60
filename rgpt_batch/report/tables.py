"""The tables of a report, as plain texts. The page and the summary write the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rgpt_batch.formatting import format_count
from rgpt_batch.records import UnitFailure
from rgpt_batch.report.estimate import Estimate
from rgpt_batch.report.numbers import (
    DASH,
    brief,
    duration,
    moment,
    number,
    percent,
    rate,
)
from rgpt_batch.report.rates import Cost
from rgpt_batch.report.rows import Distribution, Example, RejectedRows
from rgpt_batch.report.runs import RunFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        style: number, code, path, text, word or name; a name is the head of its row.
    """

    head: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, and what stands small below it."""

    text: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells; without a visible head where all heads are empty."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def has_heads(self) -> bool:
        """Whether there is anything to show above the rows."""
        return any(column.head for column in self.columns)


Content = Cell | str


def table(columns: Sequence[str | Column], rows: Iterable[Sequence[Content]]) -> Table:
    """Make a table of columns, or their heads, and of rows of cells or their texts."""
    return Table(
        columns=tuple(c if isinstance(c, Column) else Column(head=c) for c in columns),
        rows=tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows),
    )


def name_column(head: str) -> Column:
    """Return a column of heads of rows."""
    return Column(head=head, style="name")


def number_columns(*heads: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(head=head, style="number") for head in heads]


def facts(values: Mapping[str, Content]) -> Table:
    """Name → value, without a head."""
    return table([name_column(""), Column(head="", style="code")], values.items())


def quantiles(distributions: Mapping[str, tuple[Distribution, int]]) -> Table:
    """Mean and quantiles.

    Args:
        distributions: With the number of decimals, by name.
    """
    shares = {"Least": 0, "5%": 0.05, "25%": 0.25, "Median": 0.5, "75%": 0.75, "95%": 0.95}
    shares["Most"] = 1
    return table(
        [name_column(""), *number_columns("Mean", *shares)],
        (
            [
                name,
                number(found.mean, decimals or 1),
                *(number(found.quantile(share), decimals) for share in shares.values()),
            ]
            for name, (found, decimals) in distributions.items()
        ),
    )


_IDS = (Column(head="Query id", style="code"), Column(head="Document id", style="code"))
_PLACE = (Column(head="Input file", style="path"), *number_columns("Row, from 0"))


def truncated(rows: Sequence[Example]) -> Table:
    """Rows that lost the most."""
    return table(
        [*_IDS, *number_columns("Tokens kept", "Dropped"), *_PLACE],
        (
            [
                brief(row.query_id),
                brief(row.doc_id),
                number(row.num_document_tokens),
                number(row.num_dropped_document_tokens),
                row.source_file,
                number(row.source_row),
            ]
            for row in rows
        ),
    )


def rejected(groups: Sequence[RejectedRows]) -> Table:
    """How many rows were rejected for which reason."""
    return table(
        [
            Column(head="Reason", style="code"),
            Column(head="Meaning", style="text"),
            *number_columns("Rows"),
        ],
        ([group.reason, group.description, number(group.num_rows)] for group in groups),
    )


def rejected_examples(groups: Sequence[RejectedRows]) -> Table:
    """The first rows of each reason."""
    return table(
        [Column(head="Reason", style="code"), *_IDS, *_PLACE],
        (
            [
                group.reason,
                brief(row.query_id),
                brief(row.doc_id),
                row.source_file,
                number(row.source_row),
            ]
            for group in groups
            for row in group.examples
        ),
    )


def cost(found: Cost) -> Table:
    """What was paid, for what, and what more pairs would cost."""

    def money(value: float | None, decimals: int = 2) -> str:
        return DASH if value is None else f"{number(value, decimals)} {found.currency}"

    return facts(
        {
            "Total": Cell(
                money(found.total),
                f"{number(found.worker_hours, 3)} worker-hours at {money(found.price_per_hour)}",
            ),
            "While scoring": Cell(
                money(found.scoring), "from each worker's first engine call to its last"
            ),
            "Start and end of runs": Cell(
                money(found.around),
                f"{percent(found.around_fraction)} of the total, however many pairs there are",
            ),
            "Per million more pairs": Cell(
                money(found.per_million_pairs), "while scoring: start and end are not in it"
            ),
            "Per million prompt tokens": Cell(
                money(found.per_million_prompt_tokens, 4), "while scoring"
            ),
        }
    )


def planned(found: Estimate, num_rows: int, worker_hours: float, paid: Cost | None) -> Table:
    """What a recorded plan expected of the scoring, and what it came to."""

    def interval(low: float, high: float, decimals: int) -> str:
        ends = number(low, decimals), number(high, decimals)
        return ends[0] if low == high else " to ".join(ends)

    low, high = found.low, found.high
    rows = [
        ["Rows", number(low.num_rows_left), number(num_rows)],
        [
            "Worker-hours",
            interval(low.worker_hours, high.worker_hours, 3),
            number(worker_hours, 3),
        ],
    ]
    if paid is not None and low.cost is not None and high.cost is not None:
        expected = f"{interval(low.cost, high.cost, 2)} {paid.currency}"
        rows.append(["Cost", expected, f"{number(paid.total, 2)} {paid.currency}"])
    return table([name_column(""), *number_columns("Planned", "Actual")], rows)


def runs(found: Sequence[RunFacts]) -> Table:
    """What each run did."""
    return table(
        [
            name_column("Run"),
            Column(head="Started, UTC"),
            *number_columns("Took"),
            Column(head="End"),
            *number_columns("Units", "Rows", "Workers"),
            Column(head="Engine"),
            *number_columns("Pairs/s", "Engine busy"),
        ],
        map(_run, found),
    )


def _run(run: RunFacts) -> list[Content]:
    times = f"start {duration(run.start_seconds)}, scoring {duration(run.scoring_seconds)}"
    odd = [f"{number(run.num_retried)} retried"] if run.num_retried else []
    odd += [f"{number(len(run.failures))} given up"] if run.failures else []
    copied = f"{number(run.num_reused)} copied" if run.num_reused else ""
    return [
        f"run {run.number}",
        moment(run.started_at),
        Cell(duration(run.seconds), times if run.num_units else ""),
        run.state,
        Cell(number(run.num_units), ", ".join(odd)),
        Cell(number(run.num_rows), copied),
        number(run.num_workers),
        ", ".join(run.engines) or DASH,
        rate(run.pairs_per_second) if run.num_units else DASH,
        percent(run.engine_time.busy_fraction) if run.num_units else DASH,
    ]


def failures(found: Sequence[UnitFailure]) -> Table:
    """Units that were given up."""
    return table(
        [
            name_column("Unit"),
            *number_columns("Rows", "Attempts"),
            Column(head="Cause of the last", style="text"),
        ],
        (
            [each.unit_id, number(each.num_rows), str(each.num_attempts), brief(each.cause)]
            for each in found
        ),
    )


def hardware(found: Mapping[str, int]) -> str:
    """Say on what workers ran."""
    return "; ".join(f"{format_count(n, 'worker')}: {name}" for name, n in found.items())
