"""How a pair becomes a prompt, case by case. For any text at all see tests/property."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rgpt_batch import run_job
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.config.prompts import ProtocolConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import PreparedPair, Rejection, RejectionReason, ScorePair, TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.tokenizer import load_tokenizer
from tests.conftest import ROOT
from tests.jobs import fake_config
from tests.property.tokenizers import KINDS, small_tokenizer

DEMO_PAIRS = Path(__file__).parents[2] / "demo" / "pairs"
QUERY = "when should a baby walk"
DOCUMENT = "most children take their first steps at about twelve months of age"


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> Any:
    """As transformers loads it."""
    return PreTrainedTokenizerFast(tokenizer_file=str(tiny_tokenizer / "tokenizer.json"))


def _tokenize(folder: Path, query: str, document: str, **settings: Any) -> PreparedPair:
    protocol = load_protocol(ProtocolConfig(**settings), ModelConfig(name=str(folder)))
    return protocol.tokenize([ScorePair(query=query, document=document)])[0]


def _prompt(folder: Path, query: str, document: str, **settings: Any) -> TokenizedPair:
    pair = _tokenize(folder, query, document, **settings)
    assert isinstance(pair, TokenizedPair), pair
    return pair


# card


def test_card_prompt_is_context_then_query_without_special_tokens(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT)
    context = tokenizer.encode(f"Document: {DOCUMENT} Query:", add_special_tokens=False)
    query = tokenizer.encode(QUERY, add_special_tokens=False)
    assert pair.token_ids.tolist() == context + query
    assert pair.token_ids.dtype == "int32"
    assert pair.query_start == len(context)
    assert tokenizer.backend_tokenizer.token_to_id("<s>") not in pair.token_ids
    num_template = len(tokenizer.encode("Document: Query:", add_special_tokens=False))
    assert pair.num_document_tokens == len(context) - num_template


def test_card_cuts_the_documents_end_to_the_limit(tiny_tokenizer: Path, tokenizer: Any) -> None:
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT * 50, max_length=40)
    assert len(pair.token_ids) == 40
    text = tokenizer.decode(pair.token_ids.tolist())
    assert text.startswith("Document: most children")
    assert text.endswith(f" Query:{QUERY}")
    whole = _prompt(tiny_tokenizer, QUERY, DOCUMENT * 50)
    assert pair.num_dropped_document_tokens == len(whole.token_ids) - 40


def test_card_can_cut_the_whole_document_but_nothing_else(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    whole = _prompt(tiny_tokenizer, QUERY, DOCUMENT)
    limit = len(whole.token_ids) - whole.num_document_tokens
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT, max_length=limit)
    assert tokenizer.decode(pair.token_ids.tolist()) == f"Document: Query:{QUERY}"
    assert pair.num_document_tokens == 0
    too_short = _tokenize(tiny_tokenizer, QUERY, DOCUMENT, max_length=limit - 1)
    assert too_short == Rejection(reason=RejectionReason.QUERY_TOO_LONG)


@pytest.mark.parametrize("template", ["{document}{query}", "{document} {query}"])
def test_card_without_any_context_is_rejected(tiny_tokenizer: Path, template: str) -> None:
    pair = _tokenize(tiny_tokenizer, QUERY, "", template=template.replace(" ", ""))
    assert pair == Rejection(reason=RejectionReason.NO_CONTEXT)
    assert _prompt(tiny_tokenizer, QUERY, "", template="{document}:{query}").query_start == 1


def test_card_takes_braces_and_special_tokens_in_texts_as_they_are(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    pair = _prompt(tiny_tokenizer, "{document}", "{query} </s> [PAD]")
    text = tokenizer.decode(pair.token_ids.tolist())
    assert text == "Document: {query} </s> [PAD] Query:{document}"


def test_card_ignores_truncation_and_padding_stored_with_the_tokenizer(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    stored["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 2,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    for name in ("card", "eval"):
        expected = _prompt(tiny_tokenizer, QUERY, DOCUMENT, name=name)
        found = _prompt(folder, QUERY, DOCUMENT, name=name)
        assert found.token_ids.tolist() == expected.token_ids.tolist()


# eval


def _eval_py(tokenizer: Any, query: str, document: str, *, arguana: bool) -> tuple[list[int], int]:
    """What eval.py feeds and where its query starts, in its own words."""

    def get_num_token(text: str) -> int:
        return len(tokenizer.encode(text))

    def truncation(text: str, length: int) -> str:
        ids = tokenizer.encode(text, max_length=length, truncation=True, add_special_tokens=False)
        decoded: str = tokenizer.decode(ids)
        return decoded

    prompt = "Document: {doc} Query:"
    prompt_len = get_num_token(prompt)
    if not arguana:
        query = query.replace("[PAD]", "PAD")
        passage_max_len = 512 - prompt_len - get_num_token(query) - 10
        source = prompt.format(doc=truncation(document, passage_max_len)).replace("[PAD]", "PAD")
    else:
        source = prompt.format(doc=truncation(document, 256)).replace("[PAD]", "PAD")
        query = truncation(query, 256)
    return tokenizer.encode(source + query), get_num_token(source)


@pytest.mark.parametrize("arguana", [False, True])
@pytest.mark.parametrize(
    ("query", "document"),
    [
        (QUERY, DOCUMENT),
        (QUERY, DOCUMENT * 100),
        (QUERY * 20, DOCUMENT * 100),
        (f"[PAD] {QUERY}", f"a [PAD] b {DOCUMENT}"),
        (QUERY, ""),
        (f" {QUERY} ", f"  {DOCUMENT}  "),
        ("größer 東京 👩‍👩‍👧", "👩‍👩‍👧" * 300),
    ],
)
def test_eval_prompt_is_that_of_eval_py(
    tiny_tokenizer: Path, tokenizer: Any, query: str, document: str, arguana: bool
) -> None:
    token_ids, query_start = _eval_py(tokenizer, query, document, arguana=arguana)
    pair = _prompt(tiny_tokenizer, query, document, name="eval-arguana" if arguana else "eval")
    assert pair.token_ids.tolist() == token_ids
    assert pair.query_start == query_start
    assert pair.token_ids[0] == tokenizer.backend_tokenizer.token_to_id("<s>")


def test_eval_keeps_at_most_512_tokens_and_counts_the_rest(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT * 100, name="eval")
    assert 490 < len(pair.token_ids) <= 512
    num_tokens = len(tokenizer.encode(DOCUMENT * 100, add_special_tokens=False))
    assert pair.num_document_tokens + pair.num_dropped_document_tokens == num_tokens


def test_eval_rejects_a_query_that_leaves_no_room_for_a_document(tiny_tokenizer: Path) -> None:
    pair = _tokenize(tiny_tokenizer, QUERY * 100, DOCUMENT, name="eval")
    assert pair == Rejection(reason=RejectionReason.QUERY_TOO_LONG)
    arguana = _prompt(tiny_tokenizer, QUERY * 100, DOCUMENT, name="eval-arguana")
    assert arguana.num_query_tokens in range(250, 260)


@pytest.mark.parametrize("name", ["card", "eval", "eval-arguana"])
@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\u00a0\u3000"])
def test_blank_query_is_rejected_by_every_protocol(
    tiny_tokenizer: Path, name: str, query: str
) -> None:
    pair = _tokenize(tiny_tokenizer, query, DOCUMENT, name=name)
    assert pair == Rejection(reason=RejectionReason.EMPTY_QUERY)


# Loading


def test_missing_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot load the tokenizer of '{tmp_path}'"):
        load_tokenizer(ModelConfig(name=str(tmp_path)))


@pytest.mark.parametrize("content", ["", "{", '{"model": {"type": "Magic"}}'])
def test_damaged_tokenizer_is_refused_by_name(
    tiny_tokenizer: Path, tmp_path: Path, content: str
) -> None:
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"cannot load the tokenizer of .* Check model\.name"):
        load_tokenizer(ModelConfig(name=str(folder)))


# Blanks are what normalizers and pre-tokenizers disagree on, then numbers.
BLANKS = (
    QUERY,
    f" {QUERY}",
    f"  {QUERY}",
    f"{QUERY}  twice   thrice",
    "\n  interr",
    "\t\ttabs",
    " ",
    "▁ \u2581 in the text",
    "1234567 in 2024, 3.14",
    "<s> of HTML </s>",
    "東京 👩\u200d👧",
)
# What reads tokenizer.json its own way, and what takes it as it is.
CLASSES = ("LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLASSES)
def test_ids_are_those_of_tokenizer_json_whatever_class_is_named(
    tmp_path: Path, kind: str, name: str
) -> None:
    small_tokenizer(kind).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["backend"]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": name})
    )
    expected = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    found = load_tokenizer(ModelConfig(name=str(tmp_path))).backend_tokenizer
    for special_tokens in (False, True):
        assert [found.encode(t, add_special_tokens=special_tokens).ids for t in BLANKS] == [
            expected.encode(t, add_special_tokens=special_tokens).ids for t in BLANKS
        ]
        assert [found.encode(t, add_special_tokens=special_tokens).offsets for t in BLANKS] == [
            expected.encode(t, add_special_tokens=special_tokens).offsets for t in BLANKS
        ]


def test_card_prompt_of_a_llama_keeps_the_blank_that_a_query_begins_with(tmp_path: Path) -> None:
    small_tokenizer("llama").save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "LlamaTokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    encode = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode
    prompt = _prompt(tmp_path, f" {QUERY}", f"  {DOCUMENT}")
    expected = encode(f" {QUERY}", add_special_tokens=False)
    assert "".join(expected.tokens).startswith("▁▁w")
    assert prompt.token_ids[prompt.query_start :].tolist() == expected.ids


@pytest.mark.parametrize("file", ["tokenizer.model", "spiece.model", "spm.model"])
def test_sentencepiece_without_tokenizer_json_is_refused_with_the_reason(
    tiny_llama: Path, tmp_path: Path, file: str
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / file).touch()
    load_tokenizer(ModelConfig(name=str(folder)))
    (folder / "tokenizer.json").unlink()
    reason = f"{file} without tokenizer.json.*set model.tokenizer"
    if file != "spm.model":
        reason = f"holds {file}, but no tokenizer.json .* rgpt-batch convert "
    with pytest.raises(ConfigError, match=reason):
        load_tokenizer(ModelConfig(name=str(folder)))
    with pytest.raises(ConfigError, match=reason):
        run_job(fake_config(folder), [str(DEMO_PAIRS)], str(tmp_path / "scored"), quiet=True)
    assert not (tmp_path / "scored").exists()
    # Trust in code of the repository does not make up for code that is not there.
    with pytest.raises(ConfigError, match=reason):
        load_tokenizer(ModelConfig(name=str(folder), trust_remote_code=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"add_bos_token": False}, "add_bos_token: false, but .* adds such a token"),
        ({"add_bos_token": True, "add_eos_token": True}, "add_eos_token: true, but .* adds none"),
        ({"add_bos_token": True, "add_eos_token": False}, None),
    ],
)
def test_eval_refuses_files_that_disagree_on_special_tokens(
    tiny_tokenizer: Path, tmp_path: Path, settings: dict[str, bool], message: str | None
) -> None:
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    # card adds none.
    expected = _prompt(tiny_tokenizer, QUERY, DOCUMENT).token_ids.tolist()
    assert _prompt(folder, QUERY, DOCUMENT).token_ids.tolist() == expected
    if message is None:
        _prompt(folder, QUERY, DOCUMENT, name="eval")
    else:
        with pytest.raises(ConfigError, match=message):
            _prompt(folder, QUERY, DOCUMENT, name="eval")


def test_a_tokenizer_of_a_folder_loads_neither_transformers_nor_torch(tiny_tokenizer: Path) -> None:
    # They take seconds to import, which `plan` has no other need of. Costs a second.
    code = (
        "import sys\n"
        "from rgpt_batch.config.options import ModelConfig\n"
        "from rgpt_batch.scoring.tokenizer import load_tokenizer\n"
        f"tokenizer = load_tokenizer(ModelConfig(name={str(tiny_tokenizer)!r}))\n"
        "print(tokenizer.decode(tokenizer.backend_tokenizer.encode('a baby').ids))\n"
        "print([name for name in ('transformers', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr
