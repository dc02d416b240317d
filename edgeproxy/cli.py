"""The `edgeproxy` command."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence

from edgeproxy import (
    __version__,
    check,
    devcert,
    doctor,
    explain,
    pages,
    policytest,
    remote,
    replay,
    review,
    run,
    starter,
    top,
    warm,
)
from edgeproxy.errors import PluginError, PolicyError
from edgeproxy.http import Fetch
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

    run.add_commands(commands)
    check.add_command(commands)
    doctor.add_command(commands, run.DEFAULT_ADDRESS)

    schema = commands.add_parser("schema", help="print the JSON Schema of policies, for editors")
    schema.set_defaults(command=_schema)
    schema.add_argument("--tests", action="store_true", help="of tests of policies (*_test.yaml)")

    policytest.add_command(commands)
    explain.add_command(commands, _network)
    replay.add_command(commands, _flows)
    review.add_command(commands, _flows)
    starter.add_command(commands)
    remote.add_commands(commands)
    top.add_command(commands)
    warm.add_command(commands)

    devcert.add_command(commands)

    preview = commands.add_parser("pages", help="serve a built site as GitHub Pages would")
    preview.set_defaults(command=pages.main)
    pages.add_arguments(preview)

    plugins = commands.add_parser("plugins", help="list installed plugins and what they add")
    plugins.set_defaults(command=_plugins)
    return parser


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
