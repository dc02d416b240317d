"""Sees when the event loop stands still, and says who holds it up.

Code that waits without giving up the loop stops every request of the process at once, and nothing
in the loop can tell of it any more. So a thread looks from outside: it names the plugin and the
hook, with the stack, while they are at it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType

from edgeproxy.app import App
from edgeproxy.plan import Hook

BEAT_S = 0.5
STALL_S = 2.0  # without a turn of the loop
MAX_FRAMES = 40

log = logging.getLogger("edgeproxy.watchdog")


class Watchdog:
    """Watches the loop that `start` is called in, until `stop`, and lets `app` know."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._beat_s = 0.0  # when the loop turned last
        self._watched = 0  # the loop's thread
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._watched = threading.get_ident()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        self._beat_s = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    # ------------------------------------------------- in a thread of its own

    def _watch(self) -> None:
        told_of_s = 0.0  # the beat after which the loop stood still, if that was told
        looked_s = time.monotonic()
        while not self._stopped.wait(BEAT_S):
            now_s, beat_s = time.monotonic(), self._beat_s
            was_stopped = now_s - looked_s > STALL_S  # so was this thread: a signal, or no CPU
            looked_s = now_s
            if told_of_s and beat_s != told_of_s:
                log.warning("the event loop goes on, after %.1f s", beat_s - told_of_s)
                told_of_s = 0.0
            if was_stopped or now_s - beat_s < STALL_S:
                continue
            self._app.stalled_at_s = now_s
            if not told_of_s:
                told_of_s = beat_s
                self._tell(now_s - beat_s)

    def _tell(self, stalled_s: float) -> None:
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return
        stack = "".join(traceback.format_stack(frame)[-MAX_FRAMES:])
        plugin, hook = self._culprit(frame)
        who = f"plugin {plugin!r}" if plugin else "edgeproxy itself"
        where = f"{who} in {hook}" if hook else who
        log.error("the event loop is held up for %.1f s by %s:\n%s", stalled_s, where, stack)
        if plugin:
            self._app.counts.plugin_errors[plugin, hook or "none"] += 1

    def _culprit(self, frame: FrameType) -> tuple[str, str]:
        """Whose code `frame` is in: the hook that is being run, or else a plugin's package."""
        frames = list(_outwards(frame))
        for one in frames:
            hook = one.f_locals.get("hook")
            if isinstance(hook, Hook):
                return hook.plugin, hook.phase
        packages = {_package(type(one.instance).__module__): one.name for one in self._app.plugins}
        for one in frames:
            name = packages.get(_package(str(one.f_globals.get("__name__"))))
            if name is not None:
                return name, ""
        return "", ""


def _package(module: str) -> str:
    return module.partition(".")[0]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
