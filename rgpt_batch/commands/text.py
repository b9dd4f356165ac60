"""How commands write numbers and lists of facts."""

from __future__ import annotations

import click


def print_facts(facts: dict[str, str]) -> None:
    """Print one aligned line for each fact."""
    for name, fact in facts.items():
        click.echo(f"{name:<12} {fact}")


def format_rejected(num_rejected: dict[str, int]) -> str:
    """Format counts by reason as `34 (EMPTY_QUERY 4, NULL_QUERY 30)`."""
    if not num_rejected:
        return "0"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(num_rejected.items()))
    return f"{sum(num_rejected.values()):,} ({reasons})"
