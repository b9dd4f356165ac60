"""plan, status, verify, and what `score` shows on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rgpt_batch.output.score_file import read_footer
from tests.conftest import ROOT
from tests.e2e.jobs import Finish, Job, ReadStatus, Start
from tests.e2e.processes import held_after, parts, rgpt_batch

# 12:34:56 starting the engine for 10s: 0 of 96 pairs, no unit finished
# 12:34:56 scoring: 20 of 96 pairs, 58.1 pairs/s, 1,613 tokens/s, 3 rejected, 1s left
LINE = re.compile(
    r"^\d\d:\d\d:\d\d (?P<activity>[a-zA-Z ]+)(?P<waited> for \d+s)?: (?P<done>\d+) of 96 pairs, "
    r"(no unit finished|[\d,.]+ pairs/s, [\d,]+ tokens/s, (?P<rejected>\d) rejected"
    r"(?P<eta>, \d+s left)?)$",
    re.MULTILINE,
)


def facts(said: str) -> Any:
    """Parse `name   value` lines."""
    return dict(line.split(maxsplit=1) for line in said.splitlines() if "  " in line)


def test_plan_counts_rows_units_and_tokens_and_writes_nothing(
    job: Job, finish: Finish, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    command = rgpt_batch("plan", "-c", job.config, "-i", job.pairs, "--output", output)
    # With few units, the sample takes rows from all of them.
    options = ["-o", "units.max_rows=32", "--pairs-per-second", "2", "--workers", "4"]
    code, said = finish([*command, *options])
    assert code == 0
    found = facts(said)
    assert found["input"] == "2 shards, 96 rows"
    assert found["units"] == "3, of which 0 are committed already; largest 32 rows"
    queries = pc.mean(clean_rows["num_query_tokens"]).as_py()
    assert f"{queries:.1f} of them the query's (mean of 96 sampled rows)" in found["prompts"]
    num_cut = pc.sum(pc.greater(clean_rows["num_dropped_document_tokens"], 0)).as_py()
    assert found["truncated"] == f"{num_cut / 96:.2%} of the sampled rows, at 40 tokens"
    assert found["rejected"] == f"{3 / 96:.2%} of the sampled rows"
    assert found["time"] == (
        "12s for 96 rows with 4 workers at 2.0 pairs/s each; 0.01 worker-hours"
    )
    assert not output.exists()


def test_plan_knows_what_is_done_and_how_fast_it_was(
    job: Job, finish: Finish, clean_output: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(clean_output, tmp_path / "scored")
    for part in parts(output)[:6]:
        part.unlink()
    command = rgpt_batch("plan", "-c", job.config, "-i", job.pairs, "--output", output)
    code, said = finish(command)
    assert code == 0
    assert facts(said)["units"].startswith("24, of which 18 are committed already")
    assert re.search(r"for 24 rows with 1 worker at [\d,.]+ pairs/s each", said)
    code, said = finish([*command, "--max-length", "30"])
    assert code == 0
    assert facts(said)["units"].startswith("24, of which 0 are committed already")
    assert "holds another job" in said


@pytest.mark.parametrize(
    ("options", "max_tokens"),
    [
        (["--protocol", "eval"], 512),
        (["--protocol", "eval", "--max-length", "99"], 99),
        (["--protocol", "eval", "-o", "protocol.max_length=99"], 99),
        (["--protocol", "card"], 40),
    ],
)
def test_another_protocol_comes_with_its_own_limit(
    job: Job, finish: Finish, tmp_path: Path, options: tuple[str, ...], max_tokens: int
) -> None:
    command = rgpt_batch("plan", "-c", job.config, "-i", job.pairs, "--output", tmp_path / "scored")
    code, said = finish([*command, *options])
    assert code == 0
    assert facts(said)["truncated"].endswith(f"sampled rows, at {max_tokens} tokens")


def test_plan_names_its_cost(job: Job, finish: Finish, tmp_path: Path) -> None:
    command = rgpt_batch("plan", "-c", job.config, "-i", job.pairs, "--output", tmp_path / "scored")
    options = ["--pairs-per-second", "0.01", "--price-per-hour", "3", "--sample", "8"]
    code, said = finish([*command, *options])
    assert code == 0
    assert facts(said)["time"].endswith("2.67 worker-hours, cost 8.00")


def test_status_during_and_after_a_run(
    job: Job, start: Start, finish: Finish, tmp_path: Path, read_status: ReadStatus
) -> None:
    output = tmp_path / "scored"
    process = start(job.score(output), held_at=held_after(4))
    process.wait_until(lambda: (output / "_rgpt" / "status.json").exists())
    seen = []
    asked = None
    while process.is_running():
        # At every moment the file is whole.
        seen.append(read_status(output))
        if asked is None and seen[-1]["num_rows_committed"] == 16:
            asked = [finish(rgpt_batch("status", output, *o)) for o in ([], ["--json"])]
            process.let_go()
        time.sleep(0.002)
    assert process.wait() == 0, process.output
    assert [status["num_rows_committed"] for status in seen] == sorted(
        status["num_rows_committed"] for status in seen
    )
    activities = {status["activity"] for status in seen if status["state"] == "running"}
    # The start may be over before the first look.
    assert {"scoring"} <= activities <= {"starting the engine", "scoring"}

    assert asked is not None
    (text_code, text), (json_code, as_json) = asked
    assert text_code == json_code == 0
    assert facts(text)["state"] == "running: scoring"
    num_units, num_rows = (int(facts(text)[name].split()[0]) for name in ("units", "rows"))
    assert (num_units, num_rows) == (4, 16)
    during = json.loads(as_json)
    assert (during["num_units_committed"], during["num_rows_committed"]) == (4, 16)
    assert not during["complete"]

    code, text = finish(rgpt_batch("status", output))
    assert code == 0
    assert facts(text) == {
        "state": "complete",
        "units": "24 of 24 committed",
        "rows": "96 of 96",
        "rejected": "3 (NULL_QUERY 3)",
        "engine": "fake: the scores are invented",
    }
    code, as_json = finish(rgpt_batch("status", output, "--json"))
    after = json.loads(as_json)
    assert after["complete"] and after["state"] == "complete"
    assert after["num_rejected"] == {"NULL_QUERY": 3}
    assert (after["num_units_committed"], after["num_rows_committed"]) == (24, 96)
    assert after["failed_units"] == {}


def test_status_of_a_job_that_was_killed_does_not_say_that_it_runs(
    job: Job, start: Start, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    process = start(job.score(output), held_at=held_after(2))
    process.wait_until(lambda: len(parts(output)) >= 2)
    process.send(signal.SIGKILL)
    process.wait()
    # As it will look an hour later.
    path = output / "_rgpt" / "status.json"
    status = json.loads(path.read_text())
    path.write_text(json.dumps({**status, "updated_at": status["updated_at"] - 3600}))
    code, said = finish(rgpt_batch("status", output))
    assert code == 0
    assert "no sign of life for 1h00m; the same command resumes" in said


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_folder_without_a_job_is_a_clear_error(
    command: str, finish: Finish, tmp_path: Path
) -> None:
    for folder in (tmp_path / "missing", tmp_path / "empty", tmp_path / "other"):
        if folder.name != "missing":
            folder.mkdir()
        if folder.name == "other":
            (folder / "thesis.tex").write_text("…")
        code, said = finish(rgpt_batch(command, folder))
        assert code == 2
        assert str(folder) in said
        assert re.search("does not exist|no job", said), said


def test_verify_finds_nothing_wrong_with_a_good_output(finish: Finish, clean_output: Path) -> None:
    code, said = finish(rgpt_batch("verify", clean_output, "--sample", "10"))
    assert re.search(r"^\d\d:\d\d:\d\d checking 24 files$", said, re.MULTILINE)
    assert code == 0
    assert facts(said)["checked"] == "24 files, 96 rows"
    assert facts(said)["result"] == "all is well"
    assert re.match(r"\d+ rows, largest difference", facts(said)["rescored"])


def test_verify_exits_3_and_names_what_is_wrong(
    finish: Finish, clean_output: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(clean_output, tmp_path / "scored")
    missing, damaged, *_ = parts(output)
    missing.unlink()
    footer, metadata = read_footer(str(damaged))
    assert footer.num_rows == metadata.num_rows == 4
    damaged.write_bytes(damaged.read_bytes()[:-20])
    code, said = finish(rgpt_batch("verify", output))
    assert code == 3
    assert f"{missing.name}: missing" in said
    assert f"{damaged}: " in said
    assert "problems" in facts(said)["result"]


def test_without_a_terminal_there_is_a_line_at_the_start_and_one_at_the_end(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    code, said = finish(
        [*job.score(tmp_path / "scored"), "-o", "engine.fake_seconds_per_pair=0.02"]
    )
    assert code == 0
    lines = list(LINE.finditer(said))
    assert [line["activity"] for line in lines] == ["starting the engine", "scoring", "done"]
    first, middle, last = lines
    # Nothing is measured before the first unit is finished.
    assert (first["done"], first["rejected"], first["eta"]) == ("0", None, None)
    assert middle["eta"] or middle["done"] in ("0", "96")
    assert (last["done"], last["rejected"], last["eta"]) == ("96", "3", None)


def test_quiet_shows_the_result_alone(job: Job, finish: Finish, tmp_path: Path) -> None:
    code, said = finish(job.score(tmp_path / "scored", "--quiet"))
    assert code == 0
    assert "pairs," not in said
    assert "96, of which 96 in this run" in said


def test_a_terminal_shows_a_bar_that_reaches_the_end(
    job: Job, start: Start, tmp_path: Path
) -> None:
    command = [*job.score(tmp_path / "scored"), "-o", "engine.fake_seconds_per_pair=0.02"]
    process = start(command, terminal=True)
    assert process.wait() == 0, process.output
    # The last state of the bar, without the control sequences.
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", process.output).replace("\r", "\n")
    bars = [line for line in shown.splitlines() if "tokens/s" in line]
    assert any(" left" in bar and "scoring" in bar for bar in bars)
    assert bars[-1].startswith("done") and "100%" in bars[-1] and "3 rejected" in bars[-1]
    assert max(map(len, bars)) <= 100


BLOCKED = ("torch", "ray", "vllm", "transformers")
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))"


@pytest.mark.parametrize(
    "code",
    [
        "import rgpt_batch",
        "from rgpt_batch.cli import main; main(['--help'])",
        "from rgpt_batch.cli import main; main(['score', '--help'])",
    ],
)
def test_the_package_and_its_help_need_no_heavy_library(
    code: int, record_property: Callable[[str, object], None]
) -> None:
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}; {code}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    # For information: 0.1 to 0.3 s on quiet cores.
    record_property("seconds", time.perf_counter() - began)
    assert process.returncode == 0, process.stderr


def test_every_option_explains_itself(finish: Finish) -> None:
    for command in ("score", "plan", "status", "verify"):
        _, said = finish(rgpt_batch(command, "--help"))
        options = re.split(r"\n  (?=-)", said.split("Options:\n")[1].split("\n\n")[0])
        for option in options:
            words = option.split("  ", 1)
            assert len(words) == 2 and words[1].strip(), option
        assert "Example: rgpt-batch" in said


def test_the_nightly_script_scores_and_verifies_and_passes_exit_codes_on(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = [ROOT / "jobs" / "nightly.sh", job.config, job.pairs]
    code, said = finish([*script, tmp_path / "scored"], environment={"PATH": path})
    assert code == 0
    assert "96, of which 96 in this run" in said and "all is well" in said
    command = [*script, tmp_path / "next", tmp_path / "scored"]
    code, said = finish(command, environment={"PATH": path})
    assert code == 0
    assert "reused       93 of 96 rows" in said and "all is well" in said
    (tmp_path / "file").write_text("…")
    code, said = finish([*script, tmp_path / "file"], environment={"PATH": path})
    assert code == 2
    assert "failed with exit code 2" in said
