"""What systemd has to do with us: sockets that it opened, and what it wants to be told.

Its protocol is a few variables and datagrams (sd_listen_fds(3), sd_notify(3)). The libraries for it
are either no longer looked after or bindings that need a compiler.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

FIRST_DESCRIPTOR = 3

log = logging.getLogger("edgeproxy")


def passed_sockets(env: MutableMapping[str, str] = os.environ) -> dict[str, list[int]]:
    """Descriptors of the sockets that were opened for this process, by FileDescriptorName.

    The variables go, so that no child takes them for its own.
    """
    process, count = env.pop("LISTEN_PID", ""), env.pop("LISTEN_FDS", "")
    names = env.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    if process != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return found
    for number in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + number
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) and names[number] else "unknown"
        found.setdefault(name, []).append(descriptor)
    return found


class Notify:
    """Tells the service manager how we are; nobody, if it did not ask to be told."""

    def __init__(self, env: MutableMapping[str, str] = os.environ) -> None:
        self._address = env.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        process, watchdog_us = env.pop("WATCHDOG_PID", ""), env.pop("WATCHDOG_USEC", "")
        self.watchdog_s = 0.0
        """How often to say that we live, at least; 0: never."""
        if process in ("", str(os.getpid())) and watchdog_us.isascii() and watchdog_us.isdigit():
            self.watchdog_s = int(watchdog_us) / 1e6

    def ready(self, status: str) -> None:
        """Requests are served, by the policy that was asked for last."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A new policy is being read; `ready` has to follow."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=finishing the requests under way")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the service manager cannot be told: %s", error)
