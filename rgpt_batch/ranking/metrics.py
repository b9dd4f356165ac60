"""Which metrics there are: names as ir_measures writes them, and what computes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.trec import Qrels

if TYPE_CHECKING:
    import ir_measures

DEFAULT_METRICS = "nDCG@10,RR@10,R@100,AP"

_EXAMPLES = f"e.g. {DEFAULT_METRICS},P@5,AP(rel=2)"
# What the C code of trec_eval takes; others end the process.
_MAX_CUTOFF = 2**31 - 1


def open_evaluator(
    metrics: str, qrels: Qrels
) -> tuple[ir_measures.Evaluator, list[ir_measures.Measure]]:
    """Return what computes the metrics, and each of them once, in the order asked for.

    Args:
        metrics: Names, separated by commas.
        qrels: The judgements.

    Raises:
        ConfigError: A metric is unknown or cannot be computed, or a package is missing.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise ConfigError(
            "evaluating needs ir-measures. Install it: pip install 'rgpt-batch[eval]'."
        ) from error
    # These compute in this process; others start Perl or Java, or need ids that are numbers.
    provider = ir_measures.providers.FallbackProvider(
        [ir_measures.pytrec_eval, ir_measures.msmarco, ir_measures.judged]
    )
    # The commas between parentheses do not part metrics.
    names = [name.strip() for name in re.split(r",(?![^(]*\))", metrics) if name.strip()]
    if not names:
        raise ConfigError(f"--metrics '{metrics}': names no metric. Name some, {_EXAMPLES}.")
    measures = list(dict.fromkeys(_measure(name, provider) for name in names))
    return provider.evaluator(measures, qrels), measures


def cutoff(measure: ir_measures.Measure) -> int | None:
    """Return how many documents of a ranking a metric looks at; None for all."""
    found: int | None = measure.params.get("cutoff")
    return found


def _measure(name: str, provider: Any) -> ir_measures.Measure:
    """Read one name; raises ConfigError where it cannot be computed."""
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
        if not 1 <= measure.params.get("cutoff", 1) <= _MAX_CUTOFF:
            raise ValueError(f"the cutoff must be from 1 to {_MAX_CUTOFF:,}")
        measure.validate_params()
        if not provider.supports(measure):
            raise _not_computed(name, measure, provider)
        # Some values of parameters are refused only here.
        list(provider.evaluator([measure], {"q": {"d": 1}}).iter_calc({"q": {"d": 1.0}}))
    except (NameError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ConfigError(
            f"--metrics '{name}': {_said(error)}. Names are those of ir_measures, upper and lower "
            f"case count, {_EXAMPLES}."
        ) from error
    return measure


def _said(error: Exception) -> str:
    if parameter := re.match(r"invalid param (\w+)=<object", str(error)):
        return f"the parameter {parameter[1]} is missing"
    return str(error).rstrip(". ")


def _not_computed(name: str, measure: ir_measures.Measure, provider: Any) -> ConfigError:
    import ir_measures

    others = [
        other.NAME for other in ir_measures.providers.registry.values() if other.supports(measure)
    ]
    known = [known.NAME for part in provider.providers for known in part.SUPPORTED_MEASURES]
    why = (
        f"ir_measures has it from {' and '.join(others)}, which would start another program or "
        "need further packages, and is not used here"
        if others
        else "no provider of ir_measures computes it with these parameters"
    )
    return ConfigError(
        f"--metrics '{name}': {why}. What is computed here: {', '.join(dict.fromkeys(known))}."
    )
