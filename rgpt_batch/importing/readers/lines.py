"""Text files in, line by line, each with its number, so that every error can say where."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rgpt_batch.errors import ShardError
from rgpt_batch.input.footers import is_damage, read_error

_GZIP_MAGIC = b"\x1f\x8b"


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    r"""Yield (number, text) of every line that is not blank; numbers count from 1, blanks too.

    Byte-order marks, line ends (\n or \r\n) and gzip compression, whatever the file is called, are
    taken off; files that were joined by `cat` have a mark wherever one of them begins. No other
    character ends a line: texts may hold U+2028 or \x85.

    Raises:
        ShardError: There is no such file, it is damaged, or a line is not UTF-8. Bytes are never
            replaced: two ids could become the same one.
        StorageError: The file cannot be reached.
    """
    number = 0
    try:
        with Path(path).open("rb") as file:
            # peek, unlike seek, works on pipes as well: `--run <(zcat runs/*.gz)`.
            is_gzip = file.peek(2)[:2] == _GZIP_MAGIC
            stream: Iterable[bytes] = gzip.GzipFile(fileobj=file) if is_gzip else file
            for number, line in enumerate(stream, 1):
                text = line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n").decode("utf-8")
                if text.strip(" \t"):
                    yield number, text
    except UnicodeDecodeError as error:
        raise ShardError(
            f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1}). Convert "
            "the file, for example with `iconv -f LATIN1 -t UTF-8`; `iconv -c` drops such bytes."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        if not (is_damage(error) or isinstance(error, FileNotFoundError | IsADirectoryError)):
            raise read_error(path, error) from error
        raise ShardError(
            f"{path}: reading failed after line {number}: {error}. Check the path, or fetch the "
            "file again."
        ) from error


def read_records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a file with one JSON object per line.

    Raises:
        ShardError: See read_lines; or a line is not a JSON object.
    """
    for number, text in read_lines(path):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ShardError(
                f"{path}:{number}: not JSON ({error}). Expected one JSON object per line; "
                "candidates in the JSON of rank_llm are read by `import rankllm`."
            ) from error
        if not isinstance(record, dict):
            raise ShardError(
                f"{path}:{number}: expected a JSON object, found {type(record).__name__}. "
                "Write one object per line: `jq -c '.[]'` takes an array apart. Candidates in the "
                "JSON of rank_llm are read by `import rankllm`."
            )
        yield number, record
