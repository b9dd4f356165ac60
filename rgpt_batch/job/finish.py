"""The end of a run: is the output complete, and what has the run come to?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rgpt_batch.job.restore import scored_store, unscored
from rgpt_batch.job.run import EXIT_COMPLETE, EXIT_INCOMPLETE, JobSummary, Run
from rgpt_batch.job.totals import engine_time
from rgpt_batch.output.inspect import crash_problem, describe_files, foreign_files
from rgpt_batch.output.success import Success
from rgpt_batch.records import RejectionReason, WorkUnit


def finish(run: Run) -> JobSummary:
    """Compare what is published with the plan; declare success if nothing is missing.

    Files that _SUCCESS names are not read again.
    """
    manifest, tally, listing = run.manifest, run.tally, run.store.listing()
    scored = scored_store(run.store, manifest).committed() if manifest.clustered else listing.files
    run.note_committed(scored)
    run.see(scored.keys())
    planned = {unit.unit_id for unit in manifest.units}
    success = listing.success
    if success and success.fingerprint == manifest.fingerprint and success.files.keys() == planned:
        files, damaged = success.files, list[str]()
    else:
        success = None
        files, damaged = describe_files(listing.files)
    output = run.output = Success.of(files, manifest.fingerprint, manifest.num_rows)
    missing = unscored(run.store, manifest, listing.files)
    problems = [*_problems(run, output, missing), *damaged]
    if not problems and success is None:
        run.store.write_success(output)
    elif problems and listing.is_declared:
        run.store.withdraw_false_success()
    pairs_per_second, _, _ = tally.rates()
    done = tally.done
    return JobSummary(
        output=run.store.location,
        exit_code=EXIT_INCOMPLETE if problems else EXIT_COMPLETE,
        num_units=len(manifest.scored_units),
        num_rows=manifest.num_rows,
        num_rows_before=tally.num_rows_before,
        num_rows_scored=done.num_rows_committed,
        num_rows_by_others=sum(tally.elsewhere.values()),
        num_rejected=output.num_rejected,
        num_reused=output.num_reused,
        num_truncated_rows=done.num_truncated_rows,
        num_prompt_tokens=done.num_prompt_tokens,
        seconds=time.monotonic() - run.started,
        pairs_per_second=pairs_per_second,
        engine_busy_fraction=engine_time(run.reports).busy_fraction,
        engines=tuple(sorted({report.engine for report in run.reports})),
        passed_over=tuple(dict.fromkeys(why for r in run.reports for why in r.passed_over)),
        parity=run.parity,
        failures=tuple(run.failures),
        problems=tuple(problems),
    )


def _problems(run: Run, output: Success, missing: Sequence[WorkUnit]) -> list[str]:
    num_rejected = Counter(output.num_rejected)
    problems = []
    if missing:
        num_rows = sum(unit.num_rows for unit in missing)
        problems.append(
            f"{len(missing)} of {len(run.manifest.scored_units)} units ({num_rows:,} rows) are not "
            "scored. Running the same command again tries them once more."
        )
    problems += foreign_files(output.files, run.manifest)
    limit = run.config.output.max_rejected_fraction
    if num_rejected.total() > limit * run.manifest.num_rows:
        problems.append(
            f"{num_rejected.total():,} of {run.manifest.num_rows:,} rows are rejected, more than "
            f"output.max_rejected_fraction={limit:g} allows."
        )
    if num_unreadable := num_rejected[RejectionReason.UNREADABLE]:
        problems.append(
            f"{num_unreadable:,} rows stand on damaged pages of their input file and have no score "
            "and no ids. Repair the file and score it again."
        )
    if num_rejected[RejectionReason.ENGINE_CRASH]:
        if run.manifest.clustered:
            scored = scored_store(run.store, run.manifest)
            found, _ = describe_files(scored.committed())
            problems.append(crash_problem(found.values(), scored.location))
        else:
            problems.append(crash_problem(output.files.values()))
    return problems
