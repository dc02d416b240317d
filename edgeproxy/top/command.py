"""`edgeproxy top`: the command line, the keys, and one frame after the other."""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.remote.asking import Unanswered, add_access, ask
from edgeproxy.top.figures import Figures, figures

if TYPE_CHECKING:
    from edgeproxy.metrics.snapshot import Snapshot

QUIT = "q"


def add_command(commands: Any) -> None:
    """`top`, to a set of sub-parsers."""
    top = commands.add_parser("top", help="watch what a running edgeproxy does")
    top.set_defaults(command=main)
    top.add_argument(
        "--interval", default="2", type=_seconds, metavar="S", help="from frame to frame"
    )
    top.add_argument("--once", action="store_true", help="print one frame, after one interval")
    add_access(top)


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 3600")
    return number


def main(options: argparse.Namespace) -> int:
    """0: left by a key, or printed; 1: nobody answers, or `rich` is missing; 2: wrong use."""
    if options.json:
        print(json.dumps(asdict(_one(options)), indent=2))
        return 0
    try:
        import rich  # noqa: F401
    except ImportError:
        print("edgeproxy top: it draws with rich, which is not installed; run: "
              "pip install 'edgeproxy[top]'", file=sys.stderr)  # fmt: skip
        return 1
    if options.once or not sys.stdout.isatty():
        _print(_one(options), options.admin)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(options)
    return 0


def _look(options: argparse.Namespace) -> Snapshot:
    """What has been counted until now. Raises Unanswered."""
    return cast("Snapshot", ask(options, "GET", "/metrics.json"))


def _one(options: argparse.Namespace) -> Figures:
    before = _look(options)
    time.sleep(options.interval)
    return figures(before, _look(options))


def _print(found: Figures, where: str) -> None:
    from rich.console import Console

    from edgeproxy.top.frame import frame

    Console(highlight=False).print(frame(found, where))


def _watch(options: argparse.Namespace) -> None:
    """Until `q`. While nobody answers, the last figures stay, and say so."""
    from rich.live import Live
    from rich.text import Text

    from edgeproxy.top.frame import frame

    before = _look(options)
    with _keys(), Live(Text("..."), screen=True, auto_refresh=False) as live:
        found: Figures | None = None
        while _pressed(options.interval) != QUIT:
            trouble = ""
            try:
                now = _look(options)
                found, before = figures(before, now), now
            except Unanswered as error:
                trouble = str(error)
            shown = Text(trouble, "bold red")
            live.update(frame(found, options.admin, trouble) if found else shown, refresh=True)


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys come one by one, unseen, as long as this lasts; nothing where there is no keyboard."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(within_s: float) -> str:
    """The key that is pressed within a time; empty if none is."""
    if not sys.stdin.isatty():
        time.sleep(within_s)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], within_s)
    return sys.stdin.read(1) if ready else ""
