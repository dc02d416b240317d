"""Keeps the certificates of a policy's `tls.acme`: gets what is missing, renews what ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from edgeproxy.acme.schedule import pause_s, renewal_at
from edgeproxy.policy.acme import AcmeConfig
from edgeproxy.policy.certificates import lifetime
from edgeproxy.policy.model import PolicyCore

LOOK_EVERY_S = 3600.0
"""At the latest, whatever was reckoned before: clocks are put right, machines sleep."""

BUSY_S = 60.0

LEAST_S = 3600.0
"""Between two certificates for a name, whatever they say: with a clock that is years ahead all
have ended."""

log = logging.getLogger("edgeproxy.acme")


class Issues(Protocol):
    """What has one certificate issued: see `issuing.Issuer`."""

    def issue(self, name: str) -> None: ...


type MakeIssuer = Callable[[AcmeConfig, Path, threading.Event], Issues]


@dataclass(slots=True)
class Rest:
    """Of a name: nothing is asked for it before `until_s`, a moment of the monotonic clock."""

    failures: int = 0  # in a row
    until_s: float = 0.0


@dataclass(slots=True)
class Keeper:
    """`start` it in the one process that asks for certificates; `follow` when the policy changes.

    Whoever serves takes new certificates up by itself when their files change.
    """

    core: Callable[[], PolicyCore]
    make_issuer: MakeIssuer | None = None
    _rests: dict[str, Rest] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _task: asyncio.Future[None] | None = None

    def follow(self) -> None:
        """Look again: another policy is in force."""
        self._rests.clear()
        self._news.set()

    def start(self) -> None:
        """Begin, once names can be proved here."""
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                wait_s = await self._round()
            except Exception:
                log.exception("certificates cannot be looked after")
                wait_s = LOOK_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    async def _round(self) -> float:
        """Get what is due, one after the other; how long there is nothing more to do."""
        core = self.core()
        acme, state = core.tls.acme if core.tls is not None else None, core.state.path
        if acme is None or state is None:
            return LOOK_EVERY_S
        wait_s = LOOK_EVERY_S
        for name in acme.names:
            left_s = self._left_s(acme, state, name)
            if left_s <= 0:
                left_s = await self._get(acme, state, name)
            wait_s = min(wait_s, left_s)
        return wait_s

    def _left_s(self, acme: AcmeConfig, state: Path, name: str) -> float:
        """How long until a certificate for `name` is asked for."""
        rest = self._rests.get(name, Rest())
        waits_s = max(0.0, rest.until_s - time.monotonic())
        life = lifetime(acme.files(state, name)[0])
        if life is None:
            return waits_s
        due = renewal_at(*life, _share_of(name))
        return max(waits_s, (due - datetime.now(UTC)).total_seconds())

    async def _get(self, acme: AcmeConfig, state: Path, name: str) -> float:
        """Have one issued; how long until it is looked at again."""
        from edgeproxy.acme.issuing import Busy, Issuer, NotIssued  # takes a while to import

        issuer = (self.make_issuer or Issuer)(acme, state, self._stop)
        log.info("a certificate for %s is asked for, at %s", name, acme.directory)
        try:
            await _in_a_thread(lambda: issuer.issue(name))
        except Busy:
            return BUSY_S
        except NotIssued as error:
            return self._failed(name, str(error), error.after_s)
        except Exception as error:
            log.exception("a certificate for %s", name)
            return self._failed(name, f"{type(error).__name__}: {error}", 0)
        self._rests[name] = Rest(until_s=time.monotonic() + LEAST_S)
        if acme.directory == "staging":
            log.warning("certificates of staging are for trials: no browser trusts them")
        return self._left_s(acme, state, name)

    def _failed(self, name: str, reason: str, after_s: float) -> float:
        rest = self._rests.setdefault(name, Rest())
        rest.failures += 1
        wait_s = max(after_s, pause_s(rest.failures, random.random()))
        rest.until_s = time.monotonic() + wait_s
        log.error("no certificate for %s: %s; again in %d min", name, reason, round(wait_s / 60))
        return wait_s


def _share_of(name: str) -> float:
    """A number from 0 to 1, the same for a name each time: so a renewal is not put off for ever."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32


async def _in_a_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that keeps no process from its end.

    Those of the event loop are waited for, and an authority may take its time. What is written, is
    written whole, so nothing comes of being cut off.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="acme", daemon=True).start()
    await done
