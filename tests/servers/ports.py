"""Ports of this machine on which nobody listens."""

from __future__ import annotations

import random
import socket

# Above those of Ray's workers, and below those that the kernel gives to whoever asks for any: one
# of these could be taken before the server that it is for has started.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
