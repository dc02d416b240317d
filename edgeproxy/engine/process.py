"""The life of the main process: it starts, heeds signals and the service manager, and ends."""

from __future__ import annotations

import asyncio
import signal
from typing import Protocol

from edgeproxy.engine.systemd import Notify


class Serving(Protocol):
    """What is run: one server, or a supervisor of several."""

    urls: list[str]

    @property
    def version(self) -> str:
        """That of the policy in force."""
        ...

    async def start(self) -> None: ...

    async def reload(self) -> None: ...

    async def stop(self) -> None: ...


async def run(serving: Serving, notify: Notify) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads. Raises what `start` raises."""
    loop = asyncio.get_running_loop()
    stopped, reload_wanted = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reload_wanted.set)
    await serving.start()
    urls = " and ".join(serving.urls)
    print(f"edgeproxy serves {urls} (policy {serving.version})", flush=True)
    notify.ready(f"serves {urls}")
    tasks = [
        asyncio.ensure_future(_reload_on(serving, notify, reload_wanted)),
        asyncio.ensure_future(_live_on(notify)),
    ]
    await stopped.wait()
    notify.stopping()
    for task in tasks:
        task.cancel()
    await serving.stop()


async def _reload_on(serving: Serving, notify: Notify, wanted: asyncio.Event) -> None:
    """One reload after the other; what is asked for during one makes for another."""
    while True:
        await wanted.wait()
        wanted.clear()
        notify.reloading()
        await serving.reload()
        notify.ready(f"serves {' and '.join(serving.urls)}")


async def _live_on(notify: Notify) -> None:
    while notify.watchdog_s:
        notify.alive()
        await asyncio.sleep(notify.watchdog_s / 2)
