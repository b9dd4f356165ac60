"""What monitoring gets to see: the metrics file, Ray's export, the dashboard, lines as JSON."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rgpt_batch.errors import ConfigError
from rgpt_batch.executors import create_executor
from rgpt_batch.job.metrics import METRICS, JobMetrics, PrometheusFile
from rgpt_batch.job.progress import Tally
from rgpt_batch.records import UnitFailure
from tests.conftest import ROOT, RunCli
from tests.executors.cluster import shared_cluster
from tests.executors.workers import make_units, report
from tests.jobs import fake_config, score

WritePairs = Callable[..., Path]
UNITS = ("units.max_rows=10",)


def _samples(text: str, run: str | None = None) -> dict[tuple[str, ...], float]:
    """Values of one run, or all, by name and labels but `run` and `worker`, summed over these."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if run is not None and sample.labels.get("run") != run:
                continue
            labels = [v for k, v in sorted(sample.labels.items()) if k not in ("run", "worker")]
            key = (sample.name, *labels)
            found[key] = found.get(key, 0) + sample.value
    return found


def test_the_metrics_file_says_what_the_job_has_done(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    pairs = write_pairs([("", "text"), *[("a query", f"document {i}") for i in range(34)]])
    file = tmp_path / "job.prom"
    config = fake_config(tiny_tokenizer, *UNITS, f"watch.metrics_file={file}")
    scored = score(config, [pairs], tmp_path / "scored")
    text = file.read_text()
    found = _samples(text)
    assert found["rgpt_batch_pairs_total",] == 35
    assert found["rgpt_batch_units_total",] == 4
    assert found["rgpt_batch_prompt_tokens_total",] == scored.summary.num_prompt_tokens > 0
    assert found["rgpt_batch_rejected_pairs_total", "EMPTY_QUERY"] == 1
    assert found["rgpt_batch_units_left",] == 0
    assert found["rgpt_batch_pairs_planned",] == 35
    assert found["rgpt_batch_engine_busy_ratio",] == scored.summary.engine_busy_fraction
    for stage in ("read", "engine", "commit"):
        assert found["rgpt_batch_stage_seconds_total", stage] >= 0
    for name in ("retries_total", "failed_units_total", "worker_restarts", "cached_tokens_total"):
        assert found[f"rgpt_batch_{name}",] == 0
    run = json.loads(next((scored.folder / "_rgpt" / "runs").iterdir()).read_text())
    assert f'run="{run["run_id"]}"' in text
    assert 'worker="local-' in text
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.parquet", "scored", "job.prom"}


def test_failures_retries_restarts_and_earlier_runs_are_told(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    file = tmp_path / "job.prom"
    executor = create_executor(fake_config(tiny_tokenizer))
    executor.num_restarts = 2
    tally = Tally(num_units=4, num_rows=20, num_units_before=1, num_rows_before=5)
    done, failed = make_units(2)
    with JobMetrics("run-7", tally, executor, [PrometheusFile(str(file))], print) as metrics:
        found = _samples(file.read_text())
        assert found["rgpt_batch_failed_units_total",] == found["rgpt_batch_retries_total",] == 0
        failure = UnitFailure(unit_id=failed.unit_id, num_rows=5, num_attempts=3, cause="x")
        for outcome in (replace(report(done, "w"), num_attempts=2, num_cached_tokens=9), failure):
            tally.add(outcome)
            metrics.add(outcome)
    found = _samples(file.read_text())
    assert found["rgpt_batch_failed_units_total",] == 1
    assert found["rgpt_batch_retries_total",] == 3
    assert found["rgpt_batch_worker_restarts",] == 2
    assert found["rgpt_batch_pairs_before",] == 5
    assert found["rgpt_batch_units_left",] == 1
    assert found["rgpt_batch_pairs_total",] == 5
    assert found["rgpt_batch_cached_tokens_total",] == 9


def test_readers_of_the_metrics_file_see_whole_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "job.prom"
    sink = PrometheusFile(str(path))
    for metric in METRICS:
        sink.declare(metric.name, metric.description, metric.labels, grows=metric.grows)
    for number in range(300):
        sink.increase(METRICS[0].name, 1, {"run": "r", "worker": f"worker {number}"})
    sink.publish()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            sink.publish()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = {len(path.read_bytes()) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert len(sizes) == 1


def test_a_metrics_file_that_cannot_be_written_is_refused_at_once(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    config = fake_config(tiny_tokenizer, f"watch.metrics_file={tmp_path}")
    with pytest.raises(ConfigError, match="is a folder"):
        score(config, [write_pairs(5)], tmp_path / "scored")
    assert not (tmp_path / "scored").exists()


def test_a_metrics_file_that_cannot_be_written_any_more_is_a_warning(
    tiny_tokenizer: Path,
    write_pairs: WritePairs,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A name too long for a temporary one beside it."""
    file = tmp_path / f"{'m' * 248}.prom"
    config = fake_config(tiny_tokenizer, f"watch.metrics_file={file}")
    assert score(config, [write_pairs(5)], tmp_path / "scored").summary.exit_code == 0
    assert capfd.readouterr().err.count("metrics cannot be written") == 1


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "monitoring" / "grafana.json").read_text())
    return found


def test_every_expression_of_the_dashboard_names_metrics_that_are_exported() -> None:
    exported = {metric.name: metric for metric in METRICS}
    shown = set()
    for panel in _dashboard()["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"\$\{prefix\}(\w+)", target["expr"])
            assert names, target
            for name in names:
                metric = exported[f"rgpt_batch{name}"]
                shown.add(metric.name)
                is_rate = f"rate(${{prefix}}{name}" in target["expr"]
                assert not is_rate or metric.grows, target
            known = {label for name in names for label in exported[f"rgpt_batch{name}"].labels}
            for labels in re.findall(r"by \(([\w, ]+)\)", target["expr"]):
                assert set(labels.split(", ")) <= known, target
    assert shown == exported.keys()


def test_the_dashboard_is_what_grafana_imports() -> None:
    """Its schema, as far as it is needed: ids, places that do not overlap, variables that are."""
    dashboard = _dashboard()
    assert dashboard["schemaVersion"] >= 36 and dashboard["uid"] and dashboard["title"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in ("timeseries", "stat", "gauge")
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        cells |= taken
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    assert used - {"__rate_interval", "__all"} == variables


def test_lines_as_json_say_which_run_unit_and_worker(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path, run_cli: RunCli
) -> None:
    """The command as a process, with the fake engine. Takes some 6 s."""
    done = run_cli(
        *("score", "--model", tiny_tokenizer, "-i", write_pairs(35), "--executor", "local"),
        *("--output", tmp_path / "scored", "-o", "engine.method=fake", "-o", "units.max_rows=10"),
        *("--log-format", "json", "--metrics-file", tmp_path / "job.prom"),
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    committed = [line for line in lines if line["message"] == "unit committed"]
    assert sorted(line["unit"] for line in committed) == ["000000", "000001", "000002", "000003"]
    assert sum(line["rows"] for line in committed) == 35
    assert all(line["worker"].startswith("local-") for line in committed)
    assert len({line["run"] for line in committed}) == 1
    assert {line["level"] for line in lines} == {"info"}
    assert (tmp_path / "job.prom").exists()


@pytest.mark.ray
def test_ray_exports_what_the_job_counts(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    """Asks the agent of a node as Prometheus does. Takes some 15 s on the session's cluster."""
    import ray

    shared_cluster()
    config = fake_config(tiny_tokenizer, *UNITS, "executor.kind=ray", "executor.cpus_per_worker=1")
    score(config, [write_pairs(35)], tmp_path / "scored")
    (record,) = (tmp_path / "scored" / "_rgpt" / "runs").glob("*.json")
    run = json.loads(record.read_text())["run_id"]
    node = next(node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {f"ray_{metric.name}" for metric in METRICS if metric.name not in _SILENT}
    deadline = time.monotonic() + 300
    while True:
        names: set[str] = set()
        # A node's agent answers later than the rest of it.
        with suppress(OSError), urllib.request.urlopen(url, timeout=30) as answer:
            found = _samples(answer.read().decode(), run)
            names = {key[0] for key in found}
        if wanted <= names:
            break
        assert time.monotonic() < deadline, wanted - names
        time.sleep(0.5)
    pairs = [value for key, value in found.items() if key[0] == "ray_rgpt_batch_pairs_total"]
    assert sum(pairs) == 35


# Counters that Ray has never heard of, since nothing of the kind has happened.
_SILENT = {
    "rgpt_batch_cached_tokens_total",
    "rgpt_batch_rejected_pairs_total",
    "rgpt_batch_reused_pairs_total",
    "rgpt_batch_retries_total",
    "rgpt_batch_failed_units_total",
}
