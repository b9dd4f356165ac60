"""What is written as JSON is read back the same, and identities are told apart."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rgpt_batch.input.columns import Columns
from rgpt_batch.output.score_file import Footer, read_footer, serialize
from rgpt_batch.planning.identity import (
    Identity,
    InputFile,
    InputTable,
    PairFiles,
    TableFiles,
    WrittenColumns,
    fingerprint,
)
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.planning.same_job import setting_differences
from rgpt_batch.records import Segment, WorkUnit
from tests.property.texts import characters, texts

names = st.text(characters, max_size=20)
counts = st.integers(0, 2**53)
identities = st.dictionaries(names, texts, max_size=8)

footers = st.builds(
    Footer,
    fingerprint=names,
    unit_id=names,
    attempt=names,
    num_rows=counts,
    num_rejected=st.dictionaries(names, counts, max_size=4),
    model=texts,
    protocol=names,
    engine=names,
    versions=st.dictionaries(names, names, max_size=4),
)
segments = st.builds(
    Segment, path=texts, version=names, first_row=counts, num_rows=st.integers(0, 10**6)
)
columns = st.builds(
    Columns,
    query_id=names,
    doc_id=names,
    query=names,
    document=names,
    pass_through=st.lists(names, max_size=3).map(tuple),
)
files = st.lists(
    st.builds(InputFile, path=texts, version=names, num_row_groups=counts), max_size=4
).map(tuple)
tables = st.builds(InputTable, columns=identities, files=files)
inputs = st.one_of(
    st.builds(PairFiles, files=files),
    st.builds(
        TableFiles,
        candidates=tables,
        queries=st.none() | tables,
        documents=st.none() | tables,
    ),
)
manifests = st.builds(
    Manifest,
    fingerprint=names,
    identity=st.builds(
        Identity,
        scoring=identities,
        columns=columns,
        written=st.builds(
            WrittenColumns,
            query_token_logprobs=st.booleans(),
            source=st.booleans(),
            pair_hash=st.booleans(),
        ),
        input=inputs,
    ),
    units=st.lists(
        st.builds(
            WorkUnit,
            unit_id=st.integers(0, 10**9).map("{:06d}".format),
            segments=st.lists(segments, max_size=4).map(tuple),
            num_bytes=counts,
        ),
        max_size=4,
    ).map(tuple),
)


@given(manifests)
def test_manifest_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json(), "plan.json") == manifest


@given(footers)
def test_footer_is_read_back_from_the_file_that_carries_it(footer: Footer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        path.write_bytes(serialize(pa.table({"score": [1.0, 2.0]}), footer))
        found, metadata = read_footer(str(path))
    assert found == footer
    assert metadata.num_rows == 2


@given(identities, st.data())
def test_fingerprint_changes_with_every_single_setting(
    identity: dict[str, str], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from([*identity, "a new setting"]))
    value = data.draw(texts.filter(lambda text: text != identity.get(key)))
    changed = {**identity, key: value}
    assert fingerprint(changed) != fingerprint(identity)
    assert setting_differences(identity, changed).startswith(f"  {key}: was ")
    assert fingerprint(dict(reversed(changed.items()))) == fingerprint(changed)


@given(identities, identities)
def test_fingerprints_agree_exactly_where_nothing_differs(
    old: dict[str, str], new: dict[str, str]
) -> None:
    assert (fingerprint(old) == fingerprint(new)) == (setting_differences(old, new) == "")
