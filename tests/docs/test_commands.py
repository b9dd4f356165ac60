"""Every command in README and docs is one that works. On the demo's data they are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import site_reference

from rgpt_batch.cli import cli
from tests.conftest import ROOT
from tests.docs.blocks import RUN, Command, commands, fences, pages

COMMANDS = [command for page in pages() for command in commands(page)]
# Of other programs: what makes a line of theirs true is not ours to check.
OTHERS = ("pip", "hf")


def check(words: Sequence[str]) -> None:
    """Raise ClickException where our command line would refuse the words, files aside."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        if name not in command.commands:
            raise click.UsageError(f"no command {name}")
        command = command.commands[name]
    context = click.Context(command, info_name=command.name)
    values, extra, _ = command.make_parser(context).parse_args(rest)
    if extra:
        raise click.UsageError(f"too many arguments: {extra}")
    for param in command.params:
        given = values.get(param.name or "")
        # Some stand for what the user has, such as files; limits and choices are ours.
        is_missing = given is None or param.value_is_missing(given)
        if param.required and is_missing:
            raise click.UsageError(f"{param.name} is missing")
        if not is_missing and not isinstance(param.type, click.Path) and not param.multiple:
            param.type_cast_value(context, given)
    known = {name for name, _ in site_reference.options()}
    for override in values.get("overrides") or ():
        if override.partition("=")[0] not in known:
            raise click.UsageError(f"no option {override}")


def test_the_pages_hold_commands() -> None:
    assert len(COMMANDS) > 50
    assert sum(command.title == RUN for command in COMMANDS) >= 15


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_would_be_taken(command: Command) -> None:
    program, *words = command.words
    if program == "rgpt-batch":
        check(words)
    elif program == "ray":
        assert words[:2] == ["job", "submit"]
        script = words[words.index("--") + 1 :]
        assert script[:2] == ["python", "jobs/score.py"]
        check(["score", *script[2:]])
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets)
    elif program == "python":
        path = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
        assert (ROOT / path).is_file()
    elif program == "sbatch":
        batch = next(word for word in words if not word.startswith("--"))
        assert (ROOT / batch).is_file()
    else:
        assert program in OTHERS, f"{command}: nobody has looked whether {program} does this"
    if program not in ("rgpt-batch", "pip"):
        assert command.title or program in ("make", "python")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scoer"], "no command"),
        (["score", "-i", "pairs", "--output", "scored", "--fast"], "No such option"),
        (["score", "--output", "scored"], "inputs is missing"),
        (["status"], "output is missing"),
        (["status", "a", "b"], "too many arguments"),
        (["rank", "a", "--output", "b", "--interpolate", "2"], "is not in the range"),
        (["score", "-i", "a", "--output", "b", "-o", "model.type=x"], "no option model.type"),
        (["score", "-i", "a", "--output", "b", "--executor", "spark"], "is not one of"),
    ],
)
def test_wrong_commands_are_found(words: list[str], message: str) -> None:
    with pytest.raises(click.ClickException) as raised:
        check(words)
    assert message.lower() in raised.value.format_message().lower()


def test_no_block_of_commands_hides_from_these_tests() -> None:
    """A fence without a language, or a line with a prompt, would be read by nobody."""
    for page in pages():
        for info, line, body in fences(page.read_text(encoding="utf-8")):
            assert info, f"{page}:{line}: the block has no language; sh, text, yaml, python …"
            if not info.startswith(("sh", "bash")):
                shown = [row for row in body.splitlines() if row.startswith(("rgpt-batch ", "$ "))]
                assert not shown, f"{page}:{line}: commands in a block that is not sh"


@pytest.mark.parametrize(
    "page",
    [page for page in pages() if any(each.title == RUN for each in commands(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_on_the_demo_data_work_as_they_stand(
    page: Path, tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, in this process; the fake engine stands for the model. Some seconds."""
    for name in ("configs", "demo"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        if command.title != RUN:
            continue
        words = list(command.words[1:])
        if words[0] in ("score", "plan"):
            words += ["--executor", "local", "-o", "engine.method=fake"]
            words += ["--model", str(tiny_tokenizer)]
        code = cli.main(words, prog_name="rgpt-batch", standalone_mode=False)
        assert code in (None, 0), f"{command}: exit code {code}"
    assert any((tmp_path / "out").iterdir())
