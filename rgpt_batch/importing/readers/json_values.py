"""JSON objects of a file: an array of them, indented or on one line, or one after the other.

JSON Lines are the latter. Only the object at hand is in memory, however long the file.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rgpt_batch.errors import ShardError

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 2**20
_BLANKS = re.compile(r"[ \t\r\n]+")
# An error that near the end of what is read may be the end's own: half of a word or of an escape.
_TAIL = 16


def read_objects(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of each JSON object; numbers count from 1.

    The file may be compressed with gzip, whatever it is called.

    Raises:
        ShardError: The file cannot be read, is not UTF-8, or holds something else than objects.
    """
    text = _Text(path)
    is_array = text.peek() == "["
    if is_array:
        text.take()
    is_first = True
    while (character := text.peek()) and not (is_array and character == "]"):
        if is_array and not is_first:
            if character != ",":
                raise text.error(f"expected a comma or ], found {character!r}")
            text.take()
        is_first = False
        text.peek()
        line = text.line
        value = text.value()
        if not isinstance(value, dict):
            raise text.error(f"expected a JSON object, found {type(value).__name__}", line)
        yield line, value
    if not is_array:
        return
    if not character:
        raise text.error("the array has no end; the file is cut off")
    text.take()
    if rest := text.peek():
        raise text.error(f"expected nothing after the array, found {rest!r}")


class _Text:
    """The text of a file, of which the next part is held.

    Attributes:
        line: The number of the line that comes next.
    """

    def __init__(self, path: str) -> None:
        self.line = 1
        self._path = path
        self._pieces = _read_pieces(path)
        self._held = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is not blank; nothing at the end."""
        while True:
            if blanks := _BLANKS.match(self._held, self._at):
                self._go_to(blanks.end())
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._read_on():
                return ""

    def take(self) -> None:
        """Go on by one character."""
        self._go_to(self._at + 1)

    def value(self) -> Any:
        """Read the value that comes next."""
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or (
                    error.pos >= len(self._held) - _TAIL
                )
                if is_cut and self._read_on():
                    continue
                line = self.line + self._held.count("\n", self._at, error.pos)
                raise self.error(f"not JSON ({error.msg})", line) from error
            except (ValueError, RecursionError) as error:
                raise self.error(f"not JSON ({error})") from error
            self._go_to(end)
            return found

    def error(self, problem: str, line: int | None = None) -> ShardError:
        """Say what is wrong, and where."""
        return ShardError(
            f"{self._path}:{line or self.line}: {problem}. Expected an array of JSON objects, or "
            "one object after the other."
        )

    def _go_to(self, position: int) -> None:
        self.line += self._held.count("\n", self._at, position)
        self._at = position

    def _read_on(self) -> bool:
        """Hold more; each time as much again, so that a long value is not read often."""
        rest = self._held[self._at :]
        pieces, num_read = [rest], 0
        while num_read <= len(rest) and (piece := next(self._pieces, "")):
            pieces.append(piece)
            num_read += len(piece)
        self._held, self._at = "".join(pieces), 0
        return num_read > 0


def _read_pieces(path: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    position = 0
    try:
        with Path(path).open("rb") as file:
            # peek, unlike seek, works on pipes as well.
            is_gzip = file.peek(2)[:2] == _GZIP_MAGIC
            stream: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
            while piece := stream.read(_PIECE_BYTES):
                if text := decoder.decode(piece):
                    yield text
                position += len(piece)
            if text := decoder.decode(b"", final=True):
                yield text
    except UnicodeDecodeError as error:
        raise ShardError(
            f"{path}: not UTF-8 ({error.reason} at byte {position + error.start + 1}). Convert the "
            "file, for example with `iconv -f LATIN1 -t UTF-8`."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ShardError(
            f"{path}: reading failed: {error}. Check the path, or fetch the file again."
        ) from error
