"""Submit `rgpt-batch score` to a Ray cluster; safe to repeat.

    python jobs/submit.py http://ray-head:8265 --config jobs/bloom-560m.yaml \
        --input s3://bucket/pairs/ --output s3://bucket/scored

The id of the submission is made of the output and of all that the scores depend on. While a job
with that id runs, the script follows its log instead of starting it a second time; when it was
stopped or has failed, the script submits it anew with the next number, and it resumes; when it has
succeeded, there is nothing to do. The exact command is printed first.

Input, output and the configuration must have the same names here and on the cluster, such as those
of a volume or an object store: what the job is depends on them.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from rgpt_batch.commands.job_options import load_job_config, text_tables, top_pairs
from rgpt_batch.commands.scoring import score
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.job.order import with_order
from rgpt_batch.job.plan import identify, open_input
from rgpt_batch.output import open_store

# What Ray says of a job that will not go on.
ENDED = {"FAILED", "STOPPED"}


def job_name(arguments: Sequence[str]) -> str:
    """Name a job by its output and its fingerprint.

    Args:
        arguments: Those of `rgpt-batch score`.
    """
    with score.make_context("score", list(arguments)) as context:
        options = dict(context.params)
    inputs, output = options.pop("inputs"), options.pop("output")
    tables = text_tables(options.pop("queries"), options.pop("documents"))
    only = top_pairs(options.pop("only"), options.pop("top_k"))
    for name in ("on_change", "reuse", "join", "quiet", "as_json"):
        options.pop(name)
    config, store = load_job_config(options.pop("config"), **options), open_store(output)
    given = open_input(config, inputs, tables, only)
    config, source = with_order(config, given, store, lambda message: None, only)
    text = f"{store.location}\n{identify(config, source, output).identity.fingerprint}"
    return f"rgpt-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def next_submission(name: str, statuses: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the id to use, and the status of the job that has it; None where that is new.

    Args:
        name: See job_name.
        statuses: What Ray says of each submission that it knows, by id.
    """
    number = 1
    while statuses.get(f"{name}-{number}") in ENDED:
        number += 1
    return f"{name}-{number}", statuses.get(f"{name}-{number}")


def main(address: str, *arguments: str) -> int:
    """Submit, or follow what runs; return the exit code of `ray job`."""
    from ray.job_submission import JobSubmissionClient

    jobs = JobSubmissionClient(address).list_jobs()
    statuses = {job.submission_id: str(job.status) for job in jobs if job.submission_id}
    submission, status = next_submission(job_name(arguments), statuses)
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job"]
    where = [f"--address={address}"]
    if status is None:
        command = [
            *(*ray, "submit", *where, f"--submission-id={submission}", "--"),
            *("rgpt-batch", "score", *arguments),
        ]
    else:
        print(f"{submission}: {status.lower()}")
        command = [*ray, "logs", *where, "--follow", submission]
    print(shlex.join(["ray", *command[3:]]), flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except RgptBatchError as error:
        sys.exit(f"jobs/submit.py: {error}")
