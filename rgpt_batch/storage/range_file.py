"""A file of which any part can be asked for, as a Python file to read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from typing_extensions import override


class RangeFile(io.RawIOBase):
    """Reads a file by its ranges of bytes; every read asks for just these bytes.

    Args:
        size: The file's size.
        read_range: Returns the bytes start … end - 1; both lie in the file.
    """

    def __init__(self, size: int, read_range: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size
        self._read_range = read_range
        self._position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._position

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = start[whence] + offset
        return self._position

    @override
    def read(self, size: int | None = -1) -> bytes:
        # The inherited one first makes room for all that was asked for, however much a damaged
        # file says that is.
        start = self._position
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        if end <= start:
            return b""
        content = self._read_range(start, end)
        self._position = start + len(content)
        return content

    @override
    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)
