"""The command that looks at the machine."""

from __future__ import annotations

import click

from rgpt_batch.commands.text import json_option, print_json


@click.command(
    short_help="Say what this machine can do.",
    epilog="Example: rgpt-batch doctor --json",
)
@json_option
def doctor(as_json: bool) -> int:
    """Say what this machine can do, and what to mend before a job can run here.

    No value of a credential is shown, only the names of settings. Exit code 3 where there is a
    problem.
    """
    from rgpt_batch.checks.machine import examine

    findings = examine()
    problems = [finding for finding in findings if finding.problem]
    if as_json:
        facts = [
            {"name": f.name, "value": f.value, "problem": f.problem, "fix": f.fix} for f in findings
        ]
        print_json({"ready": not problems, "findings": facts})
        return 3 if problems else 0
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        click.echo(f"{finding.name:<{width}}  {finding.value}")
        if finding.problem:
            click.echo(f"{'':<{width}}  problem: {finding.problem}")
        if finding.fix:
            click.echo(f"{'':<{width}}  {'fix' if finding.problem else 'note'}: {finding.fix}")
    click.echo()
    click.echo(
        f"{len(problems)} problems; mend them before you score." if problems else "Ready to score."
    )
    return 3 if problems else 0
