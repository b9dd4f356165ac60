"""Single requests to a store: lost answers, errors that pass and errors that do not, reading."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import CommitError, CommitStateUnknown, ConfigError, ShardError, StorageError
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.output import open_store
from rgpt_batch.records import Segment, WorkUnit
from rgpt_batch.storage import objects
from rgpt_batch.storage.files import open_source, open_version, sha256
from rgpt_batch.storage.find import find
from rgpt_batch.storage.uris import (
    check_location,
    full_paths,
    is_inside,
    is_uri,
    those_inside,
)
from tests.output.tables import FILE, OTHER_FILE, TABLE
from tests.servers.faulty_proxy import PASSING, Fault, FaultyProxy, always, first
from tests.servers.s3 import MAX_KEYS

# Writing, where a request or its answer is lost


@pytest.mark.parametrize("fault", [*PASSING, Fault.UNSUPPORTED], ids=lambda fault: fault.name)
def test_attempt_recognises_its_own_write_whatever_happened_to_the_request(
    proxy: FaultyProxy, bucket: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "3s" if fault is Fault.HANG else "60s")
    store = open_store(f"s3://{bucket}/out")
    proxy.choose = first("PUT", "part-", fault)
    assert store.commit("000000", "first", FILE) is True
    proxy.wait_for_late_requests()
    assert proxy.injected[fault] == 1
    assert store.commit("000000", "second", OTHER_FILE) is False
    assert pq.read_table(open_source(store.committed()["000000"].path)).equals(TABLE)


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_second_attempt_never_replaces_the_first_whatever_happens_to_its_request(
    proxy: FaultyProxy, bucket: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "3s" if fault is Fault.HANG else "60s")
    store = open_store(f"s3://{bucket}/out")
    store.commit("000000", "first", FILE)
    # The second request of this kind; and what the answer is then looked up by.
    proxy.restart_counting(first("PUT", "part-", fault, fault))
    assert store.commit("000000", "second", OTHER_FILE) is False
    proxy.wait_for_late_requests()
    assert pq.read_table(open_source(store.committed()["000000"].path)).equals(TABLE)


def test_late_write_of_a_dead_attempt_does_not_replace_what_came_in_between(
    proxy: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(f"s3://{bucket}/out")
    proxy.choose = first("PUT", "part-", Fault.LATE)
    with pytest.raises(CommitStateUnknown):
        store.commit("000000", "first", OTHER_FILE)
    assert store.commit("000000", "second", FILE) is True
    proxy.wait_for_late_requests()
    assert pq.read_table(open_source(store.committed()["000000"].path)).equals(TABLE)


def test_store_without_conditional_writes_keeps_one_file_for_a_unit(
    proxy: FaultyProxy, bucket: str
) -> None:
    proxy.choose = always("PUT", "part-", Fault.UNSUPPORTED)
    store = open_store(f"s3://{bucket}/out")
    assert store.commit("000000", "first", FILE) is True
    assert store.commit("000000", "second", OTHER_FILE) is False
    assert pq.read_table(open_source(store.committed()["000000"].path)).equals(TABLE)


def test_half_an_upload_is_never_visible_and_leaves_no_upload_behind(
    proxy: FaultyProxy, bucket: str, s3: Any
) -> None:
    proxy.choose = always("PUT", "part-", Fault.CUT_UPLOAD)
    store = open_store(f"s3://{bucket}/out")
    with pytest.raises(CommitStateUnknown, match=r"part-000000\.parquet: the store fails or does"):
        store.commit("000000", "first", FILE)
    assert proxy.injected[Fault.CUT_UPLOAD] == 5
    assert store.committed() == {}
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_file_of_many_megabytes_is_one_request(proxy: FaultyProxy, bucket: str, s3: Any) -> None:
    objects.replace(f"s3://{bucket}/big", bytes(20 * 2**20))
    objects.create(f"s3://{bucket}/big-2", bytes(20 * 2**20), "attempt")
    assert [request.method for request in proxy.requests] == ["PUT", "PUT"]
    assert s3.head_object(Bucket=bucket, Key="big")["ContentLength"] == 20 * 2**20


# Errors


def test_pauses_between_attempts_end_with_an_error_that_says_what_where_and_what_to_do(
    proxy: FaultyProxy, bucket: str
) -> None:
    proxy.choose = always("GET", "", Fault.SLOW_DOWN)
    with pytest.raises(StorageError) as caught:
        objects.read(f"s3://{bucket}/key")
    assert len(proxy.requests) == 5
    assert str(caught.value) == (
        f"s3://{bucket}/key: the store fails or does not answer: 503 SlowDown So it is. Check it "
        "and the network, then run the same command again."
    )
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.is_transient) == (str(caught.value), True)


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_denied_request_is_not_repeated(proxy: FaultyProxy, bucket: str, method: str) -> None:
    uri = f"s3://{bucket}/key"
    proxy.choose = always(method, "", Fault.DENY)
    call: Any = {
        "PUT": lambda: objects.create(uri, b"", "attempt"),
        "GET": lambda: objects.read(uri),
        "HEAD": lambda: objects.head(uri),
    }[method]
    with pytest.raises(StorageError, match=r"the store denies access: 403.*Check credentials"):
        call()
    assert len(proxy.requests) == 1


def test_denied_commit_is_known_not_to_have_happened(proxy: FaultyProxy, bucket: str) -> None:
    proxy.choose = always("PUT", "", Fault.DENY)
    with pytest.raises(CommitError, match=r"cannot write s3://.*denies access") as caught:
        open_store(f"s3://{bucket}/out").commit("000000", "attempt", FILE)
    assert type(caught.value) is CommitError


def test_bucket_that_does_not_exist_is_named(proxy: FaultyProxy) -> None:
    store = open_store("s3://no-such-bucket/out")
    for call in (
        store.committed,
        store.load_manifest,
        lambda: store.commit("000000", "attempt", FILE),
        lambda: find("s3://no-such-bucket/in"),
    ):
        with pytest.raises(ConfigError, match=r"no-such-bucket.*: there is no such bucket"):
            call()


def test_store_that_is_not_there_gives_an_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(StorageError, match="does not answer"):
        objects.head("s3://bucket-of-its-own/key")


def test_without_credentials_the_error_says_which_variables_to_set(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    # The place where a machine's role is asked for; not the real one.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match=r"there are no credentials\. Set the AWS_… variables"):
        objects.head("s3://bucket-without-credentials/key")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_TIMEOUT", "soon", 'a setting AWS_… cannot be used: .*"soon" as Duration'),
        ("AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS=many: expected a whole number"),
        ("AWS_ENDPOINT_URL", "localhost:9000", "AWS_ENDPOINT_URL: expected http://"),
        ("AWS_ENDPOINT_URL_S3", "", "AWS_ENDPOINT_URL_S3: expected http://"),
        ("AWS_STS_ENDPOINT", "regional", "AWS_STS_ENDPOINT: expected http://"),
        ("AWS_METADATA_ENDPOINT", "169.254.169.254", "AWS_METADATA_ENDPOINT: expected http://"),
    ],
)
def test_setting_that_cannot_be_used_is_named(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        objects.head(f"s3://bucket-{name.lower()}/key")


# What AWS's tools and clusters set for themselves; no setting of ours.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_USE_FIPS_ENDPOINT", "false"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "false"),
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "169.254.169.254"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv4"),
        ("AWS_ENDPOINT_DISCOVERY_ENABLED", "auto"),
        ("AWS_ACCOUNT_ID_ENDPOINT_MODE", "preferred"),
        ("AWS_ENDPOINT_URL_DYNAMODB", "localhost:8000"),
        ("AWS_PROFILE", "default"),
        ("AWS_MAX_CONCURRENCY", "many"),
        ("AWS_RETRY_MODE", "adaptive"),
        ("AWS_DEFAULTS_MODE", "auto"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported"),
        ("AWS_PAGER", ""),
        ("AZURE_ENDPOINT", "no URL, and no setting of S3"),
    ],
)
def test_variable_that_is_no_setting_of_the_client_is_ignored(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert objects.create(f"s3://{bucket}/key", b"content", "a")
    assert objects.read(f"s3://{bucket}/key") == b"content"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_USE_FABRIC_ENDPOINT", "true"),
        ("AZURE_SUBSCRIPTION_ID", "one"),
        ("AZURE_RESOURCE_MANAGER_ENDPOINT", "management.azure.com"),
        ("AZURE_OPENAI_ENDPOINT", "name"),
        ("AZURE_CONTAINER_REGISTRY_ENDPOINT", "name.azurecr.io"),
        ("GOOGLE_CLOUD_PROJECT", "one"),
        ("GOOGLE_API_USE_MTLS_ENDPOINT", "auto"),
        ("GOOGLE_VERTEX_ENDPOINT", "aiplatform"),
        ("GOOGLE_API_USE_CLIENT_CERTIFICATE", "false"),
    ],
)
def test_variable_of_another_tool_does_not_keep_a_store_from_being_asked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    # A port on which nothing listens: the error is the store's, not one about settings.
    for setting, chosen in {
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9/account",
        "AZURE_MAX_ATTEMPTS": "1",
        "GOOGLE_BASE_URL": "http://127.0.0.1:9",
        "GOOGLE_SKIP_SIGNATURE": "true",
        "GOOGLE_MAX_ATTEMPTS": "1",
        name: value,
    }.items():
        monkeypatch.setenv(setting, chosen)
    scheme = "gs" if name.startswith("GOOGLE") else "az"
    with pytest.raises(StorageError, match="does not answer"):
        objects.head(f"{scheme}://bucket-beside-{name.lower().replace('_', '-')}/key")


# Listing


def _put(s3: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")


def test_listing_that_is_cut_in_the_middle_is_repeated_as_a_whole(
    proxy: FaultyProxy, bucket: str, s3: Any
) -> None:
    _put(s3, bucket, *(f"out/part-{i:06d}.parquet" for i in range(MAX_KEYS + 1)))
    # The second page of the first try.
    pages = iter([None, Fault.CUT_REPLY, None, Fault.ERROR_500])
    proxy.choose = lambda request: next(pages, None)
    assert len(open_store(f"s3://{bucket}/out").committed()) == MAX_KEYS + 1
    assert len(proxy.requests) == 6


# Reading


@pytest.fixture(scope="module")
def shard_content() -> bytes:
    """A Parquet file of several pages and megabytes."""
    table = pa.table({"n": range(300_000), "text": [f"text {i}" * 5 for i in range(300_000)]})
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="none", row_group_size=100_000)
    return stream.getvalue()


@pytest.fixture
def shard(shard_content: bytes, bucket: str, s3: Any) -> str:
    """The URI of that file."""
    s3.put_object(Bucket=bucket, Key="in/a.parquet", Body=shard_content)
    return f"s3://{bucket}/in/a.parquet"


@pytest.mark.parametrize(
    "fault", [f for f in PASSING if f is not Fault.HANG], ids=lambda fault: fault.name
)
def test_rows_are_read_whatever_happens_to_the_requests(
    proxy: FaultyProxy, shard: str, fault: Fault
) -> None:
    turns = iter(range(10_000))
    proxy.choose = lambda request: fault if next(turns) % 3 == 1 else None
    with pq.ParquetFile(open_source(shard), buffer_size=2**20, pre_buffer=False) as file:
        batches = list(file.iter_batches(batch_size=10_000))
    assert sum(batch.num_rows for batch in batches) == 300_000
    assert batches[-1].column("n")[-1].as_py() == 299_999
    assert proxy.injected[fault] > 5


def test_checksum_is_that_of_the_content(shard: str, tmp_path: Path, s3: Any, bucket: str) -> None:
    s3.download_file(bucket, "in/a.parquet", str(tmp_path / "a.parquet"))
    assert sha256(shard) == sha256(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_object_that_changes_while_it_is_read_gives_an_error_and_no_row_of_the_new_one(
    shard: str, bucket: str, s3: Any, change: str
) -> None:
    file = pq.ParquetFile(open_source(shard), buffer_size=2**16, pre_buffer=False)
    batches = file.iter_batches(batch_size=1000)
    assert next(batches).num_rows == 1000
    if change == "replaced":
        content = s3.get_object(Bucket=bucket, Key="in/a.parquet")["Body"].read()
        s3.put_object(Bucket=bucket, Key="in/a.parquet", Body=content.replace(b"text", b"TEXT"))
    else:
        s3.delete_object(Bucket=bucket, Key="in/a.parquet")
    with pytest.raises(ShardError, match=f"{shard}: the object was replaced or deleted while"):
        list(batches)


def test_store_that_fails_for_good_while_a_file_is_read_gives_its_own_error(
    proxy: FaultyProxy, shard: str
) -> None:
    file = pq.ParquetFile(open_source(shard), buffer_size=2**16, pre_buffer=False)
    batches = file.iter_batches(batch_size=1000)
    next(batches)
    proxy.choose = always("GET", "", Fault.ERROR_500)
    with pytest.raises(StorageError, match="does not answer: 500 InternalError"):
        list(batches)


# Opening a shard at its version


@pytest.fixture
def planned(bucket: str, s3: Any, tmp_path: Path) -> WorkUnit:
    """A unit of one shard in the bucket, in its version of now."""
    path = tmp_path / "pairs.parquet"
    names = ("query_id", "doc_id", "query", "document")
    pq.write_table(pa.table({name: [f"{name} {i}" for i in range(3)] for name in names}), path)
    s3.upload_file(str(path), bucket, "in/pairs.parquet")
    uri = f"s3://{bucket}/in/pairs.parquet"
    segment = Segment(path=uri, version=open_version(uri)[0], first_row=0, num_rows=3)
    return WorkUnit(unit_id="000000", segments=(segment,), num_bytes=0)


PAIR_COLUMNS = Columns(query_id="query_id", doc_id="doc_id", query="query", document="document")


def test_shard_is_looked_up_once_to_be_read(proxy: FaultyProxy, planned: WorkUnit) -> None:
    proxy.restart_counting(lambda request: None)
    batches = list(read_pairs(planned, PAIR_COLUMNS, source=False))
    assert [len(batch.pairs) for batch in batches] == [3]
    assert [request.method for request in proxy.requests].count("HEAD") == 1


def test_shard_that_was_replaced_since_planning_gives_no_row(
    planned: WorkUnit, bucket: str, s3: Any
) -> None:
    old = s3.get_object(Bucket=bucket, Key="in/pairs.parquet")["Body"].read()
    s3.put_object(Bucket=bucket, Key="in/pairs.parquet", Body=old[::-1])
    with pytest.raises(ShardError, match="the file changed after the job was planned"):
        next(read_pairs(planned, PAIR_COLUMNS, source=False))


# URIs


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", "unknown scheme"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/a//b", "empty"),
        ("s3://bucket/../b", "empty"),
        ("s3://KEY:SECRET@bucket/x", r"s3://\*\*\*: the URI holds credentials"),
        ("s3://KEY:SEC/RET@bucket/x", r"s3://\*\*\*: the URI holds credentials"),
        ("s3://SECRET@bucket/x", r"s3://\*\*\*: the URI holds credentials"),
        ("gs://KEY:SECRET/x", r"gs://\*\*\*: the URI holds credentials"),
        ("s3://bucket/x?AWSAccessKeyId=SECRET", r"s3://\*\*\*: the URI holds credentials"),
        ("abfss://c@account.dfs.core.windows.net/x?sig=SECRET", r"abfss://\*\*\*: the URI"),
    ],
)
def test_wrong_uri_is_refused_without_repeating_secrets(uri: str, message: str) -> None:
    assert is_uri(uri)
    with pytest.raises(ConfigError, match=message) as caught:
        check_location(uri)
    assert "SECRET" not in str(caught.value) and "KEY" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/a b/c#d",
        "gs://bucket/x?.parquet",
        "az://container/x",
        "abfs://container/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "abfss://container@account.dfs.core.windows.net/x",
        "hf://datasets/owner/name@main/x",
        "/local/path",
        "C:/x",
    ],
)
def test_usable_location_is_accepted(location: str) -> None:
    check_location(location)


def test_azure_is_asked_for_the_container_of_the_uri_whatever_its_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A port on which nothing listens: the error is the store's, not one about the URI.
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9/account",
        "AZURE_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for bucket in ("container-1", "container-2@account.dfs.core.windows.net"):
        for scheme in ("abfs", "abfss"):
            with pytest.raises(StorageError, match=rf"{scheme}://{bucket}/x"):
                objects.head(f"{scheme}://{bucket}/x")


def test_hub_and_whole_buckets_are_no_output() -> None:
    with pytest.raises(ConfigError, match="can be read only"):
        open_store("hf://datasets/owner/name/out")
    with pytest.raises(ConfigError, match="is a whole bucket"):
        open_store("s3://bucket/")


def test_inside_means_below_in_the_same_place(tmp_path: Path) -> None:
    assert is_inside("s3://b/out/x", "s3://b/out/")
    assert is_inside("s3://b/out/x/y", "s3://b/out")
    assert is_inside(str(tmp_path / "a" / ".." / "x"), str(tmp_path))
    assert not is_inside("s3://b/output", "s3://b/out")
    assert not is_inside("s3://b/out/x", "gs://b/out")
    assert not is_inside("s3://b/x", str(tmp_path))
    assert not is_inside(str(tmp_path), "s3://b")


def test_a_folder_above_a_link_is_the_one_that_the_system_finds(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "far" / "x").touch()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "deep")
    through = f"{tmp_path}/near/link/../x"
    assert full_paths([through]) == [f"{tmp_path}/far/x"]
    (tmp_path / "near" / "x").touch()
    others = [f"{tmp_path}/near/link/./y", f"{tmp_path}/near/./x"]
    found = [f"{tmp_path}/far/x", f"{tmp_path}/near/link/y", f"{tmp_path}/near/x"]
    assert full_paths([through, *others]) == found


def test_inside_is_told_of_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    for name in ("plain", "deep/x"):
        (tmp_path / "far" / name).touch()
    (tmp_path / "near" / "folder").symlink_to("../far/deep")
    (tmp_path / "near" / "file").symlink_to("../far/deep/x")
    (tmp_path / "near" / "out").symlink_to("plain")
    near = f"{tmp_path}/near"
    into = [f"{near}/folder/x", f"{near}/folder/../plain", f"{near}/folder/../deep", f"{near}/file"]
    others = [f"{near}/folder/../../near", f"{near}/out", near, "s3://b/far/x"]
    assert those_inside([*into, *others], f"{near}/folder/../..") == [*into, *others[:3]]
    assert those_inside([*others, *into], f"{tmp_path}/far/.") == into
    assert those_inside([*others, *into, "/"], "/") == [*others[:3], *into]
    # Of a link that leads to itself nobody can say where it is, but that must be no traceback.
    (tmp_path / "near" / "loop").symlink_to("loop")
    assert those_inside([f"{near}/loop"], near) == [f"{near}/loop"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "s3://bucket/a\tb.parquet",
            r"'s3://bucket/a\\tb.parquet': the key holds a control character",
        ),
        ("s3://bucket/a\x7fb", "the key holds a control character"),
        (
            "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/key",
            "an ARN is no bucket. An access point is named by its alias",
        ),
        ("s3://key:secret@bucket/x", "holds credentials"),
    ],
)
def test_location_that_cannot_be_used_is_refused_for_what_it_is(
    location: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_location(location)
