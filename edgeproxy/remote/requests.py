"""The command about requests that a running edgeproxy has explained while it served them."""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote

from edgeproxy.explain import Explanation, has_colours, tell
from edgeproxy.log_formats import printable
from edgeproxy.remote.asking import add_access, ask, told


def add_command(commands: Any) -> None:
    """`requests`, to a set of sub-parsers."""
    requests = commands.add_parser("requests", help="see requests that were explained, and why")
    requests.set_defaults(command=_requests)
    requests.add_argument("id", nargs="?", metavar="ID", help="of one; without it all are listed")
    add_access(requests)


def _requests(options: argparse.Namespace) -> int:
    if options.id is None:
        return told(options, ask(options, "GET", "/requests"), _tell_all)
    found = ask(options, "GET", f"/requests/{quote(options.id, safe='')}")
    return told(options, found, _tell_one)


def _tell_all(answer: dict[str, Any]) -> None:
    for one in answer["requests"]:
        route, origin = one["route"] or "none", one["origin"] or "none"
        print(
            f"{one['id']}  {one['at']}  {one['status']}  {one['verdict']}  route {route}, "
            f"origin {origin}  {one['method']} {printable(one['url'])}"
        )


def _tell_one(answer: dict[str, Any]) -> None:
    print(tell(Explanation.from_json(answer), colours=has_colours(sys.stdout)), end="")
