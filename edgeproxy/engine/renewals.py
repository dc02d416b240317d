"""Certificates that are renewed by somebody: taken up when their files change, without a reload."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from pydantic_core import PydanticCustomError

from edgeproxy.policy.certificates import (
    Certificate,
    Files,
    ServerNames,
    Stamp,
    load_pair,
    stamp_of,
)

LOOK_EVERY_S = 5.0
"""Looking takes some microseconds a file. To be told by the system misses links that are turned and
folders on a network, and a renewal has days of time."""

WARN_EVERY_S = 24 * 3600.0

log = logging.getLogger("edgeproxy")


class Renewals:
    """Looks at the files of the certificates in force; `changed` is called when one was taken.

    A certificate and its key are taken together or not at all: while only one of them is replaced,
    or what is there cannot be used, the old ones stay.
    """

    def __init__(
        self,
        in_force: Callable[[], ServerNames | None],
        changed: Callable[[], None],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._in_force = in_force
        self._changed = changed
        self._look_every_s = look_every_s
        self._refused: dict[Files, Stamp] = {}

    async def run(self) -> None:
        """Look again and again, until this is cancelled."""
        warn_at_s = time.monotonic() + WARN_EVERY_S
        while True:
            await asyncio.sleep(self._look_every_s)
            await self.look()
            names = self._in_force()
            if names is not None and time.monotonic() > warn_at_s:
                warn_at_s += WARN_EVERY_S
                names.warn_of_ends()

    async def look(self) -> None:
        """Take what has changed."""
        names = self._in_force()
        if names is None:
            return
        renewed = await asyncio.to_thread(self._renewed, names)
        if renewed and names is self._in_force():  # else a reload has just read them all
            for certificate in renewed:
                how = "renewed" if names.of(certificate.files) else "had"
                names.take(certificate)
                log.info("%s was %s: it ends on %s", certificate, how, certificate.not_after)
            self._changed()

    def _renewed(self, names: ServerNames) -> list[Certificate]:
        found = []
        for files in names.files:
            old, stamp = names.of(files), stamp_of(files)
            is_known = stamp == old.stamp if old is not None else not all(stamp)
            if is_known or stamp == self._refused.get(files):
                continue
            try:
                found.append(load_pair(*files))
            except PydanticCustomError as error:
                self._refused[files] = stamp
                what = f"{old} stays as it was" if old else "a certificate is not taken"
                log.warning("%s: %s", what, error.message())
        return found
