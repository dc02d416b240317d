"""Python's collector of cycles, kept from walking again and again through what stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Build something large without the collector. Of 10,000 routes it takes half of the time, for
    nothing: all of them stay. What has no cycles is freed as always."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def rest() -> None:
    """Leave alone what is there for good, and look less often: for a program that begins to serve.

    What a request leaves behind goes by its reference counts; a look at all that is cached holds up
    every client for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
