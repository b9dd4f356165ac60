"""The recipe for the published table in docs/quality.md: whole, and every command of it is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from rgpt_batch.cli import cli
from rgpt_batch.commands.job_options import load_job_config
from rgpt_batch.config.systems import SYSTEMS
from tests.conftest import ROOT

RECIPE = (
    (ROOT / "docs" / "quality.md").read_text(encoding="utf-8").partition("## Not measured: ")[2]
)
# Those of the paper come first.
PAPER = SYSTEMS[:13]


def blocks() -> list[list[list[str]]]:
    """The commands of each block of code, as words."""
    found = re.findall(r"^```sh[^\n]*\n(.*?)^```", RECIPE, re.MULTILINE | re.DOTALL)
    return [
        [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()] for block in found
    ]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command as the command line does, but for files that are not there."""
    command: click.Command = cli
    names = []
    while isinstance(command, click.Group):
        names.append(words[0])
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    context = click.Context(command)
    given, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, rest
    values: dict[str, Any] = {}
    for parameter in command.params:
        assert parameter.name is not None
        value = given.get(parameter.name)
        assert value or not parameter.required, f"{names} lacks {parameter.name}"
        if value is not None and not isinstance(parameter.type, click.Path):
            value = parameter.type_cast_value(context, value)
        values[parameter.name] = value
    return " ".join(names), values


SYSTEM_BLOCKS = [block for block in blocks() if any(words[1] == "score" for words in block)]
COMMANDS = [words[1:] for block in blocks() for words in block if words[0] == "rgpt-batch"]
COMMANDS += [
    shlex.split(command.replace("\n", " "))[1:]
    for command in re.findall(r"`(rgpt-batch [a-z][^`]*)`", RECIPE.replace("```", ""))
    if "COMMAND" not in command
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_of_the_recipe_is_accepted(words: list[str]) -> None:
    name, values = parsed(words)
    if name == "score":
        config = load_job_config(
            values["config"], model=values["model"], protocol=values["protocol"]
        )
        assert config.score.is_likelihood == (values["protocol"] == "eval")


def test_an_option_or_a_command_that_there_is_not_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(["rank", "scored", "--output", "run", "--top", "3", "--no-such-option"])
    with pytest.raises(AssertionError, match="lacks output"):
        parsed(["rank", "scored"])
    with pytest.raises(click.BadParameter):
        parsed(["score", "-i", "pairs", "--output", "scored", "--protocol", "no-such"])


def test_every_system_of_the_paper_has_its_row_and_its_commands() -> None:
    rows = re.findall(r"^\| (\S+) \| `(\S+)` \| \S+ \| \S+ \| \S+ \|$", RECIPE, re.MULTILINE)
    assert rows == [(system.name, system.config) for system in PAPER]
    headings = re.findall(r"^(\S+):\n\n```", RECIPE, re.MULTILINE)
    assert headings == [system.name for system in PAPER]
    assert len(SYSTEM_BLOCKS) == len(PAPER)


@pytest.mark.parametrize(("system", "block"), list(zip(PAPER, SYSTEM_BLOCKS, strict=True)))
def test_what_one_command_writes_the_next_one_reads(system: Any, block: list[list[str]]) -> None:
    *before, score, rank, evaluate = block
    _, scored = parsed(score[1:])
    assert scored["config"] == system.config
    config = load_job_config(scored["config"], model=scored["model"])
    _, ranked = parsed(rank[1:])
    assert ranked["scored"] == (scored["output"],)
    assert parsed(evaluate[1:])[1]["run"] == ranked["output"]
    assert bool(before) == (system.conversion is not None)
    if not before:
        return
    *downloads, convert = before
    _, converted = parsed(convert[1:])
    assert config.model.name == converted["target"]
    folders = [folder for folder in (converted["source"], converted["base"]) if folder]
    assert [words[:2] + words[3:] for words in downloads] == [
        ["hf", "download", "--local-dir", folder] for folder in folders
    ]
    # The configuration says how, too.
    text = (ROOT / "configs" / f"{system.config}.yaml").read_text()
    for words in before:
        assert f"#   {' '.join(words)}\n" in text


def test_paths_of_all_rows_are_apart() -> None:
    outputs = [parsed(block[-3][1:])[1]["output"] for block in SYSTEM_BLOCKS]
    assert len(set(outputs)) == len(outputs)
    assert all(Path(output).parts[0] == "scored" for output in outputs)
