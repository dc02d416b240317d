"""The `edgeproxy` command."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from edgeproxy import (
    __version__,
    check,
    explain,
    log,
    pages,
    policytest,
    remote,
    replay,
    review,
    starter,
    warm,
)
from edgeproxy.addresses import BadAddress
from edgeproxy.errors import PluginError, PolicyError
from edgeproxy.http import Fetch
from edgeproxy.policy.model import RecordConfig
from edgeproxy.traffic import FlowReader


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. 0: done, 1: failed, 2: wrong use or a policy with faults."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except PolicyError as error:
        print(error, file=sys.stderr)
        return 2
    except PluginError as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 1
    except remote.Unanswered as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeproxy", description=__doc__)
    parser.set_defaults(flows=_flows)
    parser.add_argument("--version", action="version", version=f"edgeproxy {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="serve a site as policies say")
    run.set_defaults(command=_run, output=None)
    _add_serving(run)
    record = commands.add_parser("record", help="serve as run does, and record the requests")
    record.set_defaults(command=_run)
    _add_serving(record)
    add = record.add_argument
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the flow file")
    add("--sample", default="1", metavar="SHARE", help="of the clients, above 0 and up to 1")
    add("--max-size", default="1GiB", metavar="SIZE", help="stop recording there")
    add("--redact", action="append", default=[], metavar="NAME", help="redact this field, too")
    check.add_command(commands)

    schema = commands.add_parser("schema", help="print the JSON Schema of policies, for editors")
    schema.set_defaults(command=_schema)
    schema.add_argument("--tests", action="store_true", help="of tests of policies (*_test.yaml)")

    policytest.add_command(commands)
    explain.add_command(commands, _network)
    replay.add_command(commands, _flows)
    review.add_command(commands, _flows)
    starter.add_command(commands)
    remote.add_commands(commands)
    warm.add_command(commands)

    preview = commands.add_parser("pages", help="serve a built site as GitHub Pages would")
    preview.set_defaults(command=pages.main)
    pages.add_arguments(preview)

    plugins = commands.add_parser("plugins", help="list installed plugins and what they add")
    plugins.set_defaults(command=_plugins)
    return parser


def _add_serving(run: argparse.ArgumentParser) -> None:
    run.add_argument("policy", nargs="*", type=Path, help="policy files, or folders of them")
    for option, what in (("--listen", "HTTP"), ("--listen-tls", "HTTPS")):
        run.add_argument(
            option,
            action="append",
            default=[],
            metavar="ADDR",
            help=f"HOST:PORT for {what}; port 0 takes a free one; default: HTTP on 127.0.0.1:8080",
        )
    run.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="[NAME=]URL",
        help="serve this site; with a policy: where its origin NAME really is",
    )
    run.add_argument(
        "--access-log",
        choices=("auto", "text", "json", "off"),
        default="auto",
        help="auto: text on a terminal, JSON otherwise",
    )
    run.add_argument("--watch", action="store_true", help="reload when a policy file changes")
    run.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")


def _flows() -> FlowReader:
    """What reads flow files."""
    from edgeproxy.engine.flows import flows

    return flows


@contextlib.asynccontextmanager
async def _network() -> AsyncIterator[Fetch]:
    """The way to the origins, for a command that has no proxy running."""
    from edgeproxy.engine.upstream import Upstream

    upstream = Upstream()
    try:
        yield upstream.fetch
    finally:
        await upstream.close()


def _run(options: argparse.Namespace) -> int:
    import uvloop

    from edgeproxy.engine.listening import listen_addresses
    from edgeproxy.engine.process import run
    from edgeproxy.engine.serve import Server  # mitmproxy takes a second to import
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
    plain = options.listen if options.listen or options.listen_tls else ["127.0.0.1:8080"]
    try:
        listen = listen_addresses(plain, options.listen_tls, passed_sockets())
        server = Server(
            options.policy, options.origin, listen=listen, access_log=options.access_log,
            record=record,
        )  # fmt: skip
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            watch = Watch(options.policy) if options.watch and options.policy else None
            runner.run(run(server, Notify(), watch))
    except BadAddress as error:
        print(f"edgeproxy run: {error}", file=sys.stderr)
        return 2
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


def _schema(options: argparse.Namespace) -> int:
    from edgeproxy.policy.installed import Broken, installed
    from edgeproxy.policy.schema import schema
    from edgeproxy.policy.vocabulary import everything

    if options.tests:
        print(json.dumps(policytest.schema(), indent=2))
        return 0
    words = everything(installed())
    for name, entry in words.broken.items():
        kind = entry.load()
        reason = kind.reason if isinstance(kind, Broken) else ""
        print(f"edgeproxy schema: without plugin {name!r}: {reason}", file=sys.stderr)
    print(json.dumps(schema(words), indent=2))
    return 0


def _plugins(options: argparse.Namespace) -> int:
    from edgeproxy.policy.installed import Broken, installed

    for name, plugin in installed().items():
        print(f"{name}  ({plugin.source})")
        kind = plugin.load()
        if isinstance(kind, Broken):
            print(f"  cannot be loaded: {kind.reason}")
            continue
        section = kind.section or name if kind.Config is not None else ""
        for label, keys in (
            ("section", (section,) if section else ()),
            ("matchers", sorted(kind.matchers)),
            ("filters", sorted(kind.filters)),
        ):
            if keys:
                print(f"  {label}: {', '.join(keys)}")
    return 0
