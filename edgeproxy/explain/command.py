"""`edgeproxy explain`: what a policy makes of a request, without sending it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgeproxy.decision import assumed
from edgeproxy.explain.arriving import arriving, moment
from edgeproxy.explain.building import explain
from edgeproxy.explain.explanation import Explanation
from edgeproxy.explain.telling import has_colours, tell
from edgeproxy.explain.tokens import make_token
from edgeproxy.http import Exchange, Fetch, Headers
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import load
from edgeproxy.values import Duration

MAX_SPAN_S = 30 * 86400

Network = Callable[[], AbstractAsyncContextManager[Fetch]]
"""The way to the origins, opened when `--live` asks for it."""


def add_command(commands: Any, network: Network) -> None:
    """`explain`, to a set of sub-parsers."""
    parser = commands.add_parser("explain", help="say what a policy makes of a request, and why")
    parser.set_defaults(command=main, network=network)
    parser.add_argument(
        "policy", nargs="+", type=Path, metavar="POLICY", help="policy files, or folders of them"
    )
    parser.add_argument(
        "url", metavar="URL", help="what is asked for, such as https://example.org/"
    )
    parser.add_argument("-X", "--method", default="GET", help="default %(default)s")
    for option, several, value, what in (
        (("-H", "--header"), True, "'NAME: VALUE'", "a field of the request"),
        (("--cookie",), True, "NAME=VALUE", "a cookie of the request"),
        (("-d", "--data"), False, "TEXT", "the body of the request"),
        (("--from",), False, "IP", "the address of the client"),
        (("--as",), True, "FACTS", "take facts as given: country=DE,bot,variant:hero=bold"),
        (("--at",), False, "TIME", "when it comes, in ISO 8601; UTC unless it says otherwise"),
        (("--type",), False, "TYPE", "the media type that the origin is taken to answer with"),
        (("--origin-header",), True, "'NAME: VALUE'", "a field of the origin's assumed answer"),
    ):
        parser.add_argument(
            *option, action="append" if several else "store", default=[] if several else None,
            metavar=value, help=what,
        )  # fmt: skip
    parser.add_argument(
        "--status", type=int, default=200, metavar="N", help="the origin's assumed status"
    )
    parser.add_argument(
        "--token", action="store_true", help="print a token that explains requests to URL's host"
    )
    parser.add_argument(
        "--for", default="10m", metavar="TIME", help="how long it is good, default %(default)s"
    )
    parser.add_argument("--live", action="store_true", help="ask the origin, once")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(options: argparse.Namespace) -> int:
    """0: explained; 2: wrong use, or a policy with faults."""
    plan = compile_plan(load(options.policy))
    try:
        if options.token:
            print(_token(plan, options))
            return 0
        exchange, answer = _exchange(plan, options), _assumed(options)
    except ValueError as error:
        print(f"edgeproxy explain: {error}", file=sys.stderr)
        return 2
    explained = asyncio.run(_explained(plan, exchange, answer, options))
    if options.json:
        print(json.dumps(explained.as_json(), indent=2))
    else:
        print(tell(explained, colours=has_colours(sys.stdout)), end="")
    return 0


async def _explained(
    plan: Plan, exchange: Exchange, answer: Fetch, options: argparse.Namespace
) -> Explanation:
    if not options.live:
        return await explain(plan, exchange, answer)
    async with options.network() as fetch:
        return await explain(plan, exchange, fetch, is_assumed=False)


def _exchange(plan: Plan, options: argparse.Namespace) -> Exchange:
    fields = list(map(_field, options.header))
    if options.cookie:
        fields.append(("cookie", "; ".join(options.cookie)))
    return arriving(
        plan,
        options.url,
        method=options.method,
        headers=Headers.of(*fields),
        body=(options.data or "").encode(),
        peer=getattr(options, "from") or "127.0.0.1",
        facts=dict(pair for text in getattr(options, "as") for pair in _facts(text)),
        at_s=moment(options.at) if options.at else None,
    )


def _token(plan: Plan, options: argparse.Namespace) -> str:
    if plan.explain is None or plan.explain.key is None:
        raise ValueError("the policy has no key for tokens; write explain: {key: '${env:NAME}'}")
    try:
        span_s = TypeAdapter[float](Duration).validate_python(getattr(options, "for"))
    except ValidationError as error:
        raise ValueError(f"--for: {error.errors()[0]['msg']}") from None
    if not 0 < span_s <= MAX_SPAN_S:
        raise ValueError("--for: a token is good for up to 30d")
    host = arriving(plan, options.url).request.host
    return make_token(plan.explain.key.value, host, time.time() + span_s)


def _assumed(options: argparse.Namespace) -> Fetch:
    fields = list(map(_field, options.origin_header))
    if options.type or not any(name.lower() == "content-type" for name, _ in fields):
        fields.insert(0, ("content-type", options.type or "text/html; charset=utf-8"))
    Headers.of(*fields)
    if not 200 <= options.status <= 599:
        raise ValueError(f"--status {options.status}: an answer has a status from 200 to 599")
    return assumed(options.status, *fields)


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is no field; write for example 'Accept-Language: de'")
    return name.strip(), value.strip()


def _facts(text: str) -> list[tuple[str, str]]:
    """`country=DE,bot,variant:hero=bold` as names and values."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    return [(name, value) for name, _, value in pairs]
