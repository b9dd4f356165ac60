"""Configuration: files, overrides, defaults, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rgpt_batch import load_config
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.errors import ConfigError

ROOT = Path(__file__).parents[1]


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _error(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_later_overrides_win_over_earlier_ones_and_over_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "model: {name: from-file, dtype: float16}\nunits: {max_rows: 10}\n")
    config = load_config(path, ("model.name=first", "model.name=second"))
    assert config.model.name == "second"
    assert config.model.dtype == "float16"
    assert config.units.max_rows == 10


def test_override_values_are_yaml() -> None:
    config = load_config(
        None,
        (
            "model.name=m",
            "output.pass_through=[rank, 'a b']",
            "engine.vllm_args={quantization: fp8, seed: 1}",
            "model.revision=null",
            "protocol.template='D={document} Q={query}'",
        ),
    )
    assert config.output.pass_through == ("rank", "a b")
    assert config.engine.vllm_args == {"quantization": "fp8", "seed": 1}
    assert config.model.revision is None
    assert config.protocol.template == "D={document} Q={query}"


def test_folders_of_a_file_count_from_the_file_and_hub_ids_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside" / "org" / "name").mkdir(parents=True)
    (tmp_path / "elsewhere" / "org" / "other").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given, expected in (
        ("./model", f"{tmp_path}/beside/model"),
        ("../model", f"{tmp_path}/model"),
        (".", f"{tmp_path}/beside"),
        ("org/name", f"{tmp_path}/beside/org/name"),
        # No folder of that name is beside the file: a hub id, or a folder below the working folder.
        ("org/other", "org/other"),
        ("org/none", "org/none"),
        (f"{tmp_path}/x", f"{tmp_path}/x"),
    ):
        path = tmp_path / "beside" / "job.yaml"
        path.write_text(f"model: {{name: '{given}', tokenizer: '{given}'}}")
        for named in (path, "../beside/job.yaml"):
            model = load_config(named).model
            assert (model.name, model.tokenizer) == (expected, expected)
    # What is given on the command line counts from the working folder.
    assert load_config(path, "model.name=./model").model.name == "./model"


def test_a_model_above_a_link_is_the_one_that_the_system_finds(tmp_path: Path) -> None:
    for folder in ("far/deep", "far/model", "near/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "deep")
    path = tmp_path / "near" / "job.yaml"
    path.write_text("model: {name: ./link/../model}")
    assert Path(load_config(path).model.name).samefile(tmp_path / "far" / "model")
    # The other one is no replacement for one that is missing.
    (tmp_path / "far" / "model").rmdir()
    assert not Path(load_config(path).model.name).exists()


def test_folder_of_a_file_that_is_reached_through_a_link_is_the_one_that_the_system_finds(
    tmp_path: Path,
) -> None:
    (tmp_path / "far" / "configs").mkdir(parents=True)
    (tmp_path / "far" / "configs" / "job.yaml").write_text("model: {name: ../model}")
    (tmp_path / "configs").symlink_to(tmp_path / "far" / "configs")
    found = load_config(tmp_path / "configs" / "job.yaml").model.name
    assert found == f"{tmp_path}/far/model"


@pytest.mark.parametrize("text", ["model: 3", "model: {name: 3}", "model: [./x]", "model:"])
def test_model_that_is_none_is_refused_as_before(tmp_path: Path, text: str) -> None:
    assert "model" in _error(path=_write(tmp_path, text))


def test_section_without_options_means_its_defaults(tmp_path: Path) -> None:
    path = _write(tmp_path, "model: {name: m}\nengine:\n  # max_num_seqs: 8\nunits:\n")
    assert load_config(path) == load_config(None, ("model.name=m",))
    assert load_config(path, ("engine.max_num_seqs=4",)).engine.max_num_seqs == 4


def test_empty_file_means_all_defaults(tmp_path: Path) -> None:
    path = _write(tmp_path, "# nothing yet\n")
    assert load_config(path, ("model.name=m",)) == load_config(None, ("model.name=m",))


@pytest.mark.parametrize(
    ("protocol", "max_tokens"), [("card", 2048), ("eval", 512), ("eval-arguana", 544)]
)
def test_default_length_depends_on_the_protocol(protocol: str, max_tokens: int) -> None:
    config = load_config(None, ("model.name=m", f"protocol.name={protocol}"))
    assert config.protocol.max_tokens == max_tokens
    limited = load_config(
        None, ("model.name=m", f"protocol.name={protocol}", "protocol.max_length=7")
    )
    assert limited.protocol.max_tokens == 7


def test_tokenizer_is_the_models_unless_it_is_named() -> None:
    own = load_config(None, ("model.name=m", "model.revision=r"))
    assert own.model.tokenizer_source == ("m", "r")
    other = load_config(None, ("model.name=m", "model.revision=r", "model.tokenizer=t"))
    assert other.model.tokenizer_source == ("t", None)
    pinned = load_config(None, ("model.name=m", "model.revision=r", "model.tokenizer_revision=s"))
    assert pinned.model.tokenizer_source == ("m", "s")


def test_configuration_cannot_be_changed_after_loading() -> None:
    config = load_config(None, ("model.name=m",))
    with pytest.raises(ValidationError, match="frozen"):
        config.model.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_configurations_that_we_ship_are_valid(path: Path) -> None:
    assert load_config(path).model.name


# Other values for a configuration


def test_changed_configuration_is_what_a_file_with_these_values_states() -> None:
    config = load_config(None, ("model.name=m", "units.max_rows=7"))
    changed = config.with_options(
        {
            "engine.method": "fake",
            "input.columns.query": "q",
            "model": ModelConfig(name="n", dtype="float32"),
        }
    )
    assert changed == load_config(
        None,
        (
            *("model.name=n", "model.dtype=float32", "units.max_rows=7"),
            *("engine.method=fake", "input.columns.query=q"),
        ),
    )
    assert config == load_config(None, ("model.name=m", "units.max_rows=7"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("units.max_row", 5, "units.max_row: unknown option. Known: max_rows, max_bytes, order."),
        ("unit.max_rows", 5, "unit: unknown option. Known: model, protocol, score, input, "),
        ("unit.of.rows", 5, "unit: unknown option. Known: model, protocol, score, input, "),
        ("unit", 5, "unit: unknown option. Known: model, protocol, score, input, "),
        ("input.column.query", "q", "input.column: unknown option. Known: columns, missing, "),
        ("units.max_rows.first", 5, "units.max_rows.first: 'max_rows' is a value, not a section."),
        ("units.max_rows", 0, "units.max_rows: Input should be greater than 0"),
        ("units", 5, "units: Input should be"),
        ("model", {"dtype": "float32"}, "model.name: missing"),
        ("engine.vllm_args", {"hf_token": "x"}, "engine.vllm_args: must not hold hf_token"),
    ],
)
def test_change_that_no_file_could_state_is_an_error(name: str, value: Any, message: str) -> None:
    config = load_config(None, ("model.name=m",))
    with pytest.raises(ConfigError) as caught:
        config.with_options({name: value})
    assert message in str(caught.value)


def test_changes_that_contradict_each_other_are_an_error() -> None:
    config = load_config(None, ("model.name=m",))
    with pytest.raises(ConfigError, match=r"set model\.dtype=float32"):
        config.with_options({"engine.method": "transformers", "model.dtype": "bfloat16"})


# What an error says


def test_unknown_option_is_named_with_the_options_that_exist() -> None:
    message = _error("model.name=m", "units.max_row=5")
    assert message == (
        "configuration is not valid:\n  units.max_row: unknown option. "
        "Known: max_rows, max_bytes, order."
    )


def test_unknown_section_is_named_with_the_sections_that_exist(tmp_path: Path) -> None:
    path = _write(tmp_path, "model: {name: m}\nmodle: {name: n}\n")
    assert _error(path=path).startswith(
        f"{path} is not valid:\n  modle: unknown option. Known: model, protocol, score, input, "
    )


def test_unknown_option_in_a_nested_section_is_named() -> None:
    assert (
        "input.columns.docs: unknown option. Known: query_id, doc_id, query, document."
        in _error("model.name=m", "input.columns.docs=a")
    )


def test_missing_model_name_says_how_to_set_it() -> None:
    assert _error() == (
        "configuration is not valid:\n"
        "  model.name: missing. Set it in the file or with -o model.name=…"
    )


def test_all_problems_are_named_at_once() -> None:
    message = _error("model.dtype=int8", "units.max_rows=0", "engine.method=magic", "x.y=1")
    assert len(message.splitlines()) == 6
    assert "model.dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16'" in message
    assert "units.max_rows: Input should be greater than 0" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("units.max_bytes=-1", "units.max_bytes: Input should be greater than 0"),
        ("units.max_rows=many", "units.max_rows: Input should be a valid integer"),
        ("output.max_rejected_fraction=1.5", "output.max_rejected_fraction: Input should be less"),
        ("engine.gpu_memory_utilization=.nan", "engine.gpu_memory_utilization: Input should be"),
        ("engine=fast", "engine: Input should be a valid dictionary"),
        ("engine.vllm_args={hf_token: x}", "engine.vllm_args: must not hold hf_token"),
        (
            "engine.vllm_args={pipeline_parallel_size: 2}",
            "must not hold pipeline_parallel_size: set engine.pipeline_parallel_size",
        ),
        (
            "engine.vllm_args={tensor_parallel_size: 2}",
            "engine.vllm_args: must not hold tensor_parallel_size: set engine.tensor_parallel_size",
        ),
        (
            "engine.vllm_args={data_parallel_size: 2}",
            "executor.num_workers to how many engines there are",
        ),
        ("engine.pipeline_parallel_size=0", "engine.pipeline_parallel_size: Input should be gr"),
        ("protocol.template='{query} {document}'", "protocol.template: must hold {document} once"),
        ("protocol.template='{document}{query}?'", "protocol.template: must hold {document} once"),
        ("protocol.template='{query}'", "protocol.template: must hold {document} once"),
        ("model.revision=1234567", "model.revision: Input should be a valid string"),
    ],
)
def test_wrong_value_is_named_with_what_is_expected(override: str, message: str) -> None:
    assert message in _error("model.name=m", override)


def test_reference_engine_in_reduced_precision_is_refused_with_the_fix() -> None:
    message = _error("model.name=m", "engine.method=transformers", "model.dtype=bfloat16")
    assert "set model.dtype=float32" in message


@pytest.mark.parametrize("override", ["model", "=3", "model.=3", ".name=3", ""])
def test_override_that_is_no_assignment_is_refused(override: str) -> None:
    assert _error(override).startswith(f"-o {override}: expected key=value, such as")


def test_override_below_a_value_is_refused() -> None:
    assert (
        _error("model=m", "model.name=n") == "-o model.name=n: 'model' is a value, not a section."
    )


def test_override_with_broken_yaml_is_refused() -> None:
    assert _error("model.name=[a").startswith("-o model.name=[a: the value is not valid YAML: ")


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no.yaml"
    assert _error(path=path).startswith(f"{path}: cannot read the configuration: ")


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"a: \x07"])
def test_file_that_is_not_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    assert _error(path=path).startswith(f"{path}: ")


def test_file_that_is_a_list_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "- model\n")
    assert _error(path=path) == f"{path}: expected `key: value` lines, found list."


@pytest.mark.parametrize(
    ("content", "key", "first", "again"),
    [
        (
            "model: {name: m}\nprotocol:\n  max_length: 100\nprotocol:\n  name: eval\n",
            *("protocol", 2, 4),
        ),
        ("model:\n  name: a\n  dtype: auto\n  name: b\n", "name", 2, 4),
        ("model: {name: a, dtype: auto, name: a}\n", "name", 1, 1),
        ("engine:\n  vllm_args:\n    seed: 1\n    'seed': 2\n", "seed", 3, 4),
    ],
)
def test_what_is_said_twice_is_named_with_both_lines(
    tmp_path: Path, content: str, key: str, first: int, again: int
) -> None:
    path = _write(tmp_path, content)
    error = _error(path=path)
    assert error.startswith(f"{path}: not valid YAML: '{key}' stands in line {first} already.")
    assert f"line {again}, column" in error


def test_value_of_an_override_says_nothing_twice() -> None:
    assert "'seed' stands in line 1 already" in _error("engine.vllm_args={seed: 1, seed: 2}")


def test_merged_keys_may_be_said_again(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "model: {name: m}\nengine:\n  vllm_args:\n    a: &x {b: 1}\n    c: {<<: *x, b: 2}\n",
    )
    assert load_config(path).engine.vllm_args == {"a": {"b": 1}, "c": {"b": 2}}
