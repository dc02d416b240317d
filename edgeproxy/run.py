"""`edgeproxy run` and `edgeproxy record`: serve a site as policies say."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgeproxy import log
from edgeproxy.addresses import BadAddress
from edgeproxy.policy.model import MAX_WORKERS, RecordConfig

if TYPE_CHECKING:
    from edgeproxy.engine.listening import ListenAddress
    from edgeproxy.engine.process import Serving

DEFAULT_ADDRESS = "127.0.0.1:8080"


def add_commands(commands: Any) -> None:
    """`run` and `record`, to a set of sub-parsers."""
    run = commands.add_parser("run", help="serve a site as policies say")
    run.set_defaults(command=main, output=None)
    _add_serving(run)
    record = commands.add_parser("record", help="serve as run does, and record the requests")
    record.set_defaults(command=main)
    _add_serving(record)
    add = record.add_argument
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the flow file")
    add("--sample", default="1", metavar="SHARE", help="of the clients, above 0 and up to 1")
    add("--max-size", default="1GiB", metavar="SIZE", help="stop recording there")
    add("--redact", action="append", default=[], metavar="NAME", help="redact this field, too")


def _add_serving(run: argparse.ArgumentParser) -> None:
    run.add_argument("policy", nargs="*", type=Path, help="policy files, or folders of them")
    for option, what in (("--listen", "HTTP"), ("--listen-tls", "HTTPS")):
        run.add_argument(
            option,
            action="append",
            default=[],
            metavar="ADDR",
            help=f"HOST:PORT for {what}, or unix:PATH; port 0 takes a free one; `,proxy` behind it "
            "expects a PROXY header; default: HTTP on 127.0.0.1:8080",
        )
    run.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="[NAME=]URL",
        help="serve this site; with a policy: where its origin NAME really is",
    )
    run.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="processes that serve, in place of what the policy says; auto: one for each core",
    )
    run.add_argument(
        "--access-log",
        choices=log.STYLES,
        default="auto",
        help="auto: text on a terminal, JSON otherwise; common and combined: as Apache writes",
    )
    run.add_argument("--watch", action="store_true", help="reload when a policy file changes")
    run.add_argument(
        "--replace",
        type=Path,
        metavar="SOCKET",
        help="take the place of the process that has this Unix socket, and have it from then on",
    )
    run.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")


def _workers(text: str) -> int | str:
    if text == "auto" or (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_WORKERS):
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not auto or a number from 1 to {MAX_WORKERS}")


def main(options: argparse.Namespace) -> int:
    """Serve until a signal. 0: ended as it should, 1: it failed, 2: wrong use."""
    import uvloop  # this and the engine take a while to import

    from edgeproxy.engine.listening import listen_addresses
    from edgeproxy.engine.process import NotStarted, run
    from edgeproxy.engine.replacing import Place
    from edgeproxy.engine.systemd import Notify, passed_sockets
    from edgeproxy.rollout.watch import Watch

    if not options.policy and not options.origin:
        print("edgeproxy run: name a policy, or a site with --origin URL", file=sys.stderr)
        return 2
    try:
        record = _recording(options)
    except ValueError as error:
        print(f"edgeproxy record: {error}", file=sys.stderr)
        return 2
    log.set_up(options.log_level)
    is_told = options.listen or options.listen_tls
    plain = options.listen if is_told else [DEFAULT_ADDRESS]
    try:
        listen = listen_addresses(plain, options.listen_tls, passed_sockets())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            watch = Watch(options.policy) if options.watch and options.policy else None
            place = Place(options.replace) if options.replace else None
            if place is not None:
                listen = runner.run(place.take(listen))
            runner.run(run(_serving(options, listen, record), Notify(), watch, place))
    except (BadAddress, NotStarted) as error:
        print(f"edgeproxy run: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadAddress) else 1
    except KeyboardInterrupt:
        pass
    return 0


def _recording(options: argparse.Namespace) -> RecordConfig | None:
    """What the options say of a recording. ValueError for what a policy could not say."""
    if options.output is None:
        return None
    try:
        sample = float(options.sample)
        return RecordConfig.model_validate(
            {"path": options.output, "sample": sample, "max_size": options.max_size,
             "redact": tuple(options.redact)}
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None


def _serving(
    options: argparse.Namespace, listen: Sequence[ListenAddress], record: RecordConfig | None
) -> Serving:
    """A server; or a supervisor, if there are to be several or one is to be replaced in time."""
    from edgeproxy.rollout import PolicyFiles

    files = PolicyFiles(options.policy, options.origin)
    count = options.workers or files.workers()
    if count == "auto":
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if isinstance(count, int) and (count > 1 or files.limits_memory()):
        from edgeproxy.engine.workers.supervisor import Supervisor

        return Supervisor(
            options.policy, options.origin, count, listen=listen, record=record,
            access_log=options.access_log,
        )  # fmt: skip
    from edgeproxy.engine.serve import Server

    return Server(
        options.policy, options.origin, listen=listen, record=record,
        access_log=options.access_log,
    )  # fmt: skip
