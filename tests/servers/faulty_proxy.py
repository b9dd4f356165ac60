"""An HTTP proxy before a real S3 server that loses, cuts, delays and repeats what goes through it.

Which request meets which fault depends on a seed and on the request alone (method, path, and how
many of its kind came before), so that a run can be repeated.

    client ──request──▶ proxy ──request──▶ S3 server
           ◀──reply────       ◀──reply────

moto checks `If-None-Match` and writes in two steps, so two requests at the same moment could both
win. S3 does not let them: the proxy forwards writes to one key one after the other.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self


class Fault(StrEnum):
    """What happens to a request or to its reply."""

    DROP_REQUEST = "the connection ends before anything is forwarded"
    CUT_UPLOAD = "half of the body reaches the server, then the connection ends"
    LOSE_REPLY = "carried out, but the connection ends instead of a reply"
    CUT_REPLY = "carried out, but the connection ends in the middle of the reply"
    ERROR_AFTER = "carried out, but answered with 500"
    LATE = "the connection ends; carried out a moment later"
    DUPLICATE = "carried out twice; the second reply is passed on"
    HANG = "carried out, but answered after the client's timeout"
    DELAY = "carried out after a short while"
    ERROR_500 = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    UNSUPPORTED = "501 NotImplemented where the request is conditional"
    DENY = "403 with the client's signature in the answer"


# What a client has to survive. The others stand for stores of another kind, or for good.
PASSING = tuple(fault for fault in Fault if fault not in (Fault.UNSUPPORTED, Fault.DENY))
HANG_SECONDS = 4.5


class Request(NamedTuple):
    """A request as the choice of its fault sees it.

    Attributes:
        number: How many requests of this method and path came before.
        order: How many requests came before.
    """

    method: str
    path: str
    number: int
    order: int


Choose = Callable[[Request], Fault | None]


def seeded(seed: int, rate: float, faults: tuple[Fault, ...] = PASSING) -> Choose:
    """Let a share of all requests meet a fault."""

    def choose(request: Request) -> Fault | None:
        chooser = random.Random(f"{seed} {request[:3]}")
        return chooser.choice(faults) if chooser.random() < rate else None

    return choose


def first(method: str, part: str, *faults: Fault) -> Choose:
    """Let the first requests of a method, to a path that holds a text, meet these faults."""

    def choose(request: Request) -> Fault | None:
        if request.method == method and part in request.path and request.number < len(faults):
            return faults[request.number]
        return None

    return choose


def always(method: str, part: str, fault: Fault) -> Choose:
    """Let all requests of a method, to a path that holds a text, meet a fault."""
    return lambda request: fault if request.method == method and part in request.path else None


class Hold:
    """Let so many requests of a method pass, to paths that hold a text; the others wait.

    Attributes:
        arrived: Is set when one waits.
        end: Set it to end the wait; those who waited are dropped.
    """

    def __init__(self, method: str, part: str, num_passing: int) -> None:
        self.arrived, self.end = threading.Event(), threading.Event()
        self._method, self._part = method, part
        self._turns = iter(range(num_passing))

    def __call__(self, request: Request) -> Fault | None:
        is_meant = request.method == self._method and self._part in request.path
        if self.end.is_set() or not is_meant or next(self._turns, None) is not None:
            return None
        self.arrived.set()
        self.end.wait()
        return Fault.DROP_REQUEST


class FaultyProxy:
    """A context manager; `choose` and the counts may be changed at any time.

    Attributes:
        url: Where clients connect.
        injected: How often each fault was met.
        requests: All requests, in the order of their arrival.
    """

    def __init__(self, port: int, choose: Choose = lambda request: None) -> None:
        self.choose = choose
        self.injected: Counter[Fault] = Counter()
        self.requests: list[Request] = []
        self.upload_was_cut = threading.Event()
        self._port = port
        self._lock = threading.Lock()
        self._key_locks: dict[str, threading.Lock] = {}
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._late: list[threading.Timer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.wait_for_late_requests()

    def restart_counting(self, choose: Choose) -> None:
        """Forget the requests so far, so that a seed means the same again."""
        self.wait_for_late_requests()
        with self._lock:
            self._numbers.clear()
            self.requests.clear()
            self.choose = choose

    def wait_for_late_requests(self) -> None:
        while self._late:
            self._late.pop().join()

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            request = Request(method, path, self._numbers[method, path], len(self.requests))
            self._numbers[method, path] += 1
            self.requests.append(request)
        # Without the lock: a choice may wait for another request.
        fault = self.choose(request)
        if fault is not None:
            with self._lock:
                self.injected[fault] += 1
        return fault

    def forward(self, exchange: _Handler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with self._lock:
            lock = self._key_locks.setdefault(exchange.path, threading.Lock())
        with lock:
            upstream = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            upstream.request(exchange.command, exchange.path, body, dict(exchange.headers))
            reply = upstream.getresponse()
            content = reply.read()
            upstream.close()
        return reply.status, reply.getheaders(), content

    def forward_half(self, exchange: _Handler, body: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as upstream:
            lines = [f"{exchange.command} {exchange.path} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in exchange.headers.items()]
            upstream.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])
        self.upload_was_cut.set()

    def forward_later(self, exchange: _Handler, body: bytes) -> None:
        timer = threading.Timer(0.3, self.forward, (exchange, body))
        timer.start()
        self._late.append(timer)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is none of our business."""


def _handler(proxy: FaultyProxy) -> type[_Handler]:
    return type("Handler", (_Handler,), {"proxy": proxy})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def do_GET(self) -> None:
        body = self._read_body()
        fault = self.proxy.next_fault(self.command, self.path)
        match fault:
            case Fault.DROP_REQUEST:
                return self._end_connection()
            case Fault.CUT_UPLOAD:
                self.proxy.forward_half(self, body)
                return self._end_connection()
            case Fault.LATE:
                self.proxy.forward_later(self, body)
                return self._end_connection()
            case Fault.ERROR_500:
                return self._refuse(500, "InternalError")
            case Fault.SLOW_DOWN:
                return self._refuse(503, "SlowDown")
            case Fault.UNSUPPORTED if "If-None-Match" in self.headers:
                return self._refuse(501, "NotImplemented")
            case Fault.DENY:
                quoted = self.headers.get("Authorization", "")
                return self._refuse(403, "SignatureDoesNotMatch", quoted)
            case Fault.DELAY:
                time.sleep(random.uniform(0.01, 0.1))
            case Fault.DUPLICATE:
                self.proxy.forward(self, body)
        reply = self.proxy.forward(self, body)
        match fault:
            case Fault.LOSE_REPLY:
                return self._end_connection()
            case Fault.ERROR_AFTER:
                return self._refuse(500, "InternalError")
            case Fault.CUT_REPLY:
                return self._reply(*reply, cut=True)
            case Fault.HANG:
                time.sleep(HANG_SECONDS)
        self._reply(*reply)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        body = b"".join(chunks)
        # It goes on in one piece.
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(len(body))
        return body

    def _reply(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
    ) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        lines += [
            f"{name}: {value}"
            for name, value in headers
            if name.lower() not in ("content-length", "transfer-encoding", "connection")
        ]
        sizes = [value for name, value in headers if name.lower() == "content-length"]
        lines.append(f"Content-Length: {sizes[0] if sizes and not content else len(content)}")
        reply = "\r\n".join([*lines, "", ""]).encode() + content
        if cut:
            # In the middle of the content, or where there is none, of the headers.
            self.wfile.write(reply[: len(reply) - len(content) + len(content) // 2 - 8])
            return self._end_connection()
        self.wfile.write(reply)

    def _refuse(self, status: int, code: str, detail: str = "") -> None:
        content = f"<Error><Code>{code}</Code><Message>So it is.</Message>{detail}</Error>"
        self._reply(status, [], b"" if self.command == "HEAD" else content.encode())

    def _end_connection(self) -> None:
        with suppress(OSError):
            # A reset instead of an orderly end, as a crash gives it.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
