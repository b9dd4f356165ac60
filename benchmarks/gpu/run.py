"""Check and measure a GPU within a budget of seconds.

    python benchmarks/gpu/run.py --budget 450 check
    python benchmarks/gpu/run.py --budget 530 bench
    python benchmarks/gpu/run.py --budget 530 rest

check compares vLLM's attention kernels, and every engine on random models, with float32. bench
measures bloom-560m, a profile of its steps, bloom-7b, what may tune a small model, the whole job
from Parquet to Parquet, and bloom-3b. rest measures llama2-7b and longer documents. Nothing is
downloaded: vLLM makes weights up.

Each step is a process with a limit of its own, most important first. One that fails, hangs or finds
no time left is listed with the reason, and the others go on. DATE-HARDWARE-MODE.md and .jsonl in
--to are written anew while steps run, so that a run that is cut keeps what it has. Logs are below
--cache. Exit code 0: all steps did what they had to.

--tiny does the same with two-layer models in a few minutes, on any machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.steps import Plan, Step  # noqa: E402
from rgpt_batch.bench.report import dated_name  # noqa: E402
from rgpt_batch.planning.versions import installed_versions  # noqa: E402

# Between an interrupt, which lets Ray and vLLM clean up, and the end.
_GRACE_SECONDS = 5.0
_TAIL_LINES = 6
_NO_HARDWARE = "unknown hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step ended.

    Attributes:
        problem: Why it did not do what it had to; None where it did.
    """

    name: str
    seconds: float
    problem: str | None


class Results:
    """The files of a run, put together from those of its steps.

    Args:
        folder: Where to.
        work: Folder of the steps' files.
        mode: Part of the name.
        hardware: Part of the name.
    """

    def __init__(self, folder: Path, work: Path, mode: str, hardware: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{dated_name(hardware)}-{mode}.md"
        self._work = work
        self._facts = {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "mode": mode,
            "hardware": hardware,
            "driver": _driver(),
            **installed_versions(),
        }
        self._written: list[int] = []

    def write(self, outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
        """Write both files, if a step has written anything since.

        Args:
            outcomes: Of the steps that have ended.
            names: Of all steps that have begun.
        """
        files = [self.step_file(name) for name in names]
        state = [len(outcomes), *(f.stat().st_mtime_ns if f.exists() else 0 for f in files)]
        if state == self._written:
            return
        self._written = state
        lines = [f"# GPU, {self._facts['mode']}: {self._facts['hardware']}", ""]
        lines += [", ".join(f"{name} {value}" for name, value in self._facts.items()) + ".", ""]
        lines += ["| step | seconds | outcome |", "| --- | ---: | --- |"]
        for each in outcomes:
            lines.append(f"| {each.name} | {each.seconds:.0f} | {each.problem or 'done'} |")
        records = [json.dumps({"run": self._facts})]
        records += [
            json.dumps({"step": o.name, "seconds": round(o.seconds, 1), "problem": o.problem})
            for o in outcomes
        ]
        for file in files:
            if file.exists():
                text = file.read_text(encoding="utf-8").strip()
                lines += [
                    "",
                    *(f"#{line}" if line.startswith("# ") else line for line in text.splitlines()),
                ]
            if file.with_suffix(".jsonl").exists():
                records.append(file.with_suffix(".jsonl").read_text(encoding="utf-8").strip())
        _replace(self.path, "\n".join(lines) + "\n")
        _replace(self.path.with_suffix(".jsonl"), "\n".join(filter(None, records)) + "\n")

    def step_file(self, name: str) -> Path:
        """Return the Markdown file of a step."""
        return self._work / f"{name.replace(' ', '-').replace(',', '')}.md"


def _replace(path: Path, text: str) -> None:
    """Write under another name first: a reader, or the end of the machine, finds whole files."""
    staged = path.with_name(f".{path.name}.partial")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def _driver() -> str:
    if (program := shutil.which("nvidia-smi")) is None:
        return "none"
    query = "--query-gpu=driver_version,memory.total,power.limit"
    done = subprocess.run(
        [program, query, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip().replace("\n", "; ") or "unknown"


def _hardware() -> str:
    """Ask in another process: one that has looked at a GPU holds memory of it."""
    code = "from rgpt_batch.bench.hardware import hardware_name; print(hardware_name())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(),
        check=False,
    )
    return done.stdout.strip() or _NO_HARDWARE


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        # Nothing is downloaded, and nobody is told.
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def run_step(
    step: Step, outcomes: Sequence[Outcome], begun: Sequence[str], results: Results, seconds: float
) -> Outcome:
    """Run one step for at most so many seconds, and keep its tables while they grow."""
    to = results.step_file(step.name)
    log = to.with_suffix(".log")
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            step.arguments(to, seconds),
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=_environment(),
            start_new_session=True,
        )
        problem = None
        try:
            while process.poll() is None:
                if time.monotonic() - started > seconds:
                    problem = f"ended after its limit of {seconds:.0f} s"
                    break
                results.write(outcomes, begun)
                time.sleep(0.5)
        finally:
            _end(process)
    if problem is None and process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next((line for line in reversed(tail) if line.strip()), "")
        problem = f"exit code {process.returncode}: {last[:200]}"
        print("\n".join(f"  {line[:200]}" for line in tail[-_TAIL_LINES:]), flush=True)
    return Outcome(name=step.name, seconds=time.monotonic() - started, problem=problem)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a step with all processes of its session, which hold the GPU's memory."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(steps: Sequence[Step], results: Results, budget: float) -> list[Outcome]:
    """Run steps in order; those for which no time is left are told as well."""
    end = time.monotonic() + budget
    outcomes: list[Outcome] = []
    begun: list[str] = []
    for step in steps:
        if step.fallback_of in [each.name for each in outcomes if each.problem is None]:
            continue
        left = end - time.monotonic() - _GRACE_SECONDS
        if left < step.min_seconds:
            problem = f"not measured: {max(0.0, left):.0f} s left, it takes {step.min_seconds:.0f}"
            outcome = Outcome(name=step.name, seconds=0.0, problem=problem)
        else:
            begun.append(step.name)
            limit = min(left, step.limit_seconds)
            print(f"{step.name}: begins, at most {limit:.0f} s", flush=True)
            outcome = run_step(step, outcomes, begun, results, limit)
        outcomes.append(outcome)
        print(f"{step.name}: {outcome.problem or 'done'}, {outcome.seconds:.0f} s", flush=True)
        results.write(outcomes, begun)
    return outcomes


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("check", "bench", "rest"))
    parser.add_argument("--budget", type=float, default=530, help="seconds for all steps")
    parser.add_argument("--only", action="append", metavar="STEP", help="may be repeated")
    parser.add_argument("--tiny", action="store_true", help="two-layer models, one short turn")
    parser.add_argument("-o", action="append", dest="options", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--bloom-option", action="append", dest="bloom", default=[], metavar="KEY=VALUE"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="models and logs")
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args()
    cache = given.cache.resolve()
    plan = Plan(
        tiny=given.tiny,
        cache=cache,
        options=tuple(given.options),
        bloom_options=tuple(given.bloom),
    )
    steps = plan.steps(given.mode)
    if unknown := set(given.only or ()) - {step.name for step in steps}:
        names = ", ".join(step.name for step in steps)
        parser.error(f"{given.mode} has no step {', '.join(sorted(unknown))}; it has {names}")
    chosen = [step for step in steps if not given.only or step.name in given.only]
    started = time.monotonic()
    work = cache / f"gpu-{given.mode}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results = Results(given.to, work, given.mode, _hardware())
    outcomes = run(chosen, results, given.budget - (time.monotonic() - started))
    print(f"\n{results.path.read_text(encoding='utf-8')}\n{results.path}, logs in {work}")
    return 1 if any(outcome.problem for outcome in outcomes) else 0


if __name__ == "__main__":
    # A signal ends the step that runs, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
