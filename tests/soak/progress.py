"""How far a soak is: on a terminal one line that changes, elsewhere a line now and then."""

from __future__ import annotations

import sys

EVERY = 30  # times that something is told, there is a line for who reads a file


class Progress:
    def __init__(self) -> None:
        self._told = 0

    def tell(self, text: str) -> None:
        self._told += 1
        if sys.stdout.isatty():
            print(f"\r{text}", end="", flush=True)
        elif self._told % EVERY == 0:
            print(text, flush=True)

    def end(self) -> None:
        """What is printed from now on has lines of its own."""
        if sys.stdout.isatty():
            print()
