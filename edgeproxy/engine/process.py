"""The life of the main process: it starts, heeds signals and the service manager, and ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from edgeproxy import memory
from edgeproxy.engine.replacing import Place
from edgeproxy.engine.systemd import Notify
from edgeproxy.rollout.watch import Watch


class NotStarted(Exception):
    """What is run did not begin to serve, and no policy is to blame."""


Step = Callable[[], Awaitable[None]]


class Serving(Protocol):
    """What is run: one server, or a supervisor of several."""

    urls: list[str]

    @property
    def version(self) -> str:
        """That of the policy in force."""
        ...

    async def start(self, before_admin: Step | None = None) -> None:
        """Serve, and then, after `before_admin`, listen for operators."""
        ...

    async def retire(self) -> None:
        """Listen for operators no more: another process does."""
        ...

    async def reload(self, by: str) -> None: ...

    async def stop(self) -> None: ...


async def run(
    serving: Serving, notify: Notify, watch: Watch | None = None, place: Place | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until another process takes the `place`. SIGHUP reloads,
    and so does what `watch` sees. Raises what `start` raises.
    """
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager_task)
    stopped, wishes = asyncio.Event(), Wishes()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, wishes.add, "SIGHUP")
    await serving.start(place.go if place is not None else None)
    memory.settle()
    tasks = [asyncio.ensure_future(_reload_on(serving, notify, wishes))]
    if place is not None:

        async def replaced() -> None:
            await serving.retire()
            stopped.set()

        tasks.append(asyncio.ensure_future(place.offer(replaced)))
    if watch is not None:
        tasks.append(asyncio.ensure_future(watch.run(lambda: wishes.add("a changed file"))))
    urls = " and ".join(serving.urls)
    print(f"edgeproxy serves {urls} (policy {serving.version})", flush=True)
    notify.ready(f"serves {urls}")
    tasks.append(asyncio.ensure_future(_live_on(notify)))  # it runs at once: not before READY=1
    await stopped.wait()
    notify.stopping()
    for task in tasks:
        task.cancel()
    await serving.stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    if place is not None:
        place.leave()


def eager_task[T](
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """A task that runs at once, up to where it first waits.

    asyncio's own factory does not take the arguments that uvloop hands on, on Python 3.13.
    """
    options.pop("eager_start", None)
    return asyncio.Task(work, loop=loop, eager_start=True, **options)


class Wishes:
    """Who wants a reload. What is wished for during one makes for another."""

    def __init__(self) -> None:
        self._by: dict[str, None] = {}
        self._any = asyncio.Event()

    def add(self, by: str) -> None:
        self._by[by] = None
        self._any.set()

    async def taken(self) -> str:
        """All that is wished for, once there is anything."""
        await self._any.wait()
        by = " and ".join(self._by)
        self._by.clear()
        self._any.clear()
        return by


async def _reload_on(serving: Serving, notify: Notify, wishes: Wishes) -> None:
    """One reload after the other."""
    while True:
        by = await wishes.taken()
        notify.reloading()
        await serving.reload(by)
        notify.ready(f"serves {' and '.join(serving.urls)}")


async def _live_on(notify: Notify) -> None:
    while notify.watchdog_s:
        notify.alive()
        await asyncio.sleep(notify.watchdog_s / 2)
