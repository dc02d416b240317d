"""The commands that ask a running edgeproxy, by its admin listener."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from edgeproxy import simulate

DEFAULT_ADMIN = "http://127.0.0.1:8079"
TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Unanswered(Exception):
    """What to tell the person who asked, and the exit status: 1 failed, 2 wrong use."""

    def __init__(self, reason: str, status: int = 1) -> None:
        self.status = status
        super().__init__(reason)


class _Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


# ------------------------------------------------------------ the command line


def add_commands(commands: Any) -> None:
    """`purge`, `invalidate` and `cache`, to a set of sub-parsers."""
    for name, what in (
        ("purge", "drop stored answers at once"),
        ("invalidate", "have stored answers checked with the origin before they are used again"),
    ):
        marking = commands.add_parser(name, help=what)
        marking.set_defaults(command=_mark, path=f"/{name}")
        for option, value, help in (
            ("--url", "URL", "this one; without a host: of every host"),
            ("--prefix", "URL", "this path and all below; without a host: of every host"),
            ("--host", "NAME", "all of this host"),
            ("--tag", "TAG", "all that bear this tag"),
        ):
            marking.add_argument(option, action="append", default=[], metavar=value, help=help)
        marking.add_argument(
            "--everything", "--site", action="store_true", help="all that is stored"
        )
        _add_access(marking)

    cache = commands.add_parser("cache", help="look into the cache of a running edgeproxy")
    views = cache.add_subparsers(metavar="VIEW", required=True)

    ls = views.add_parser("ls", help="list what is stored")
    ls.set_defaults(command=_ls)
    ls.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="URLs that begin so")
    ls.add_argument("--limit", default="100", metavar="N", help="at most so many")
    show = views.add_parser("show", help="show every stored answer for a URL")
    show.set_defaults(command=_show)
    show.add_argument("url", metavar="URL")
    stats = views.add_parser("stats", help="show how full each tier is")
    stats.set_defaults(command=_stats)
    verify = views.add_parser("verify", help="read all that is stored, and drop what is damaged")
    verify.set_defaults(command=_verify)
    why = views.add_parser("why", help="say why the answer for a URL is stored, or is not")
    why.set_defaults(command=_why)
    why.add_argument("url", metavar="URL")
    why.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="ask with this field"
    )
    for view in (ls, show, stats, verify, why):
        _add_access(view)
    simulated = views.add_parser("simulate", help="predict from access logs what a size would do")
    simulated.set_defaults(command=simulate.main)
    simulate.add_arguments(simulated)


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        default=DEFAULT_ADMIN,
        metavar="URL",
        help="where the admin listener is, default %(default)s; or unix:PATH",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds the token; else EDGEPROXY_TOKEN does"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


# ------------------------------------------------------------ asking


def ask(
    options: argparse.Namespace,
    method: str,
    path: str,
    query: Iterable[tuple[str, str]] = (),
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer of the admin listener. Raises Unanswered."""
    headers = {"Authorization": f"Bearer {_token(options)}"}
    data = None
    if method == "POST":
        data = json.dumps(body or {}).encode()
        headers["Content-Type"] = "application/json"
    pairs = list(query)
    target = f"{path}?{urlencode(pairs)}" if pairs else path
    connection = _connection(options.admin)
    try:
        connection.request(method, target, data, headers)
        response = connection.getresponse()
        answer = json.loads(response.read(MAX_ANSWER_BYTES))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unanswered(
            f"no admin listener answers at {options.admin} ({reason}); is edgeproxy running, "
            "with an `admin` section in its policy?"
        ) from error
    except ValueError as error:
        raise Unanswered(f"{options.admin} is not an admin listener of edgeproxy") from error
    finally:
        connection.close()
    if response.status >= 400:
        said = answer.get("error", {}) if isinstance(answer, dict) else {}
        wrong_use = said.get("code") == "bad-request"
        raise Unanswered(str(said.get("message", response.status)), 2 if wrong_use else 1)
    assert isinstance(answer, dict)
    return answer


def _token(options: argparse.Namespace) -> str:
    token = os.environ.get("EDGEPROXY_TOKEN", "")
    if options.token_file is not None:
        try:
            token = options.token_file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise Unanswered(f"cannot read {options.token_file}: {error}", 2) from error
    if not token or not all("!" <= character <= "~" for character in token):
        raise Unanswered("set EDGEPROXY_TOKEN to the token of the admin section, or name a "
                         "--token-file that holds it", 2)  # fmt: skip
    return token


def _connection(admin: str) -> http.client.HTTPConnection:
    if admin.startswith("unix:"):
        return _Unix(admin.removeprefix("unix:"), TIMEOUT_S)
    try:
        parts = urlsplit(admin)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if host and parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    if host and parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S)
    raise Unanswered(f"--admin {admin}: write http://127.0.0.1:8079, or unix:PATH", 2)


def _told(
    options: argparse.Namespace, answer: dict[str, Any], tell: Callable[[dict[str, Any]], None]
) -> int:
    if options.json:
        json.dump(answer, sys.stdout, indent=2)
        print()
    else:
        tell(answer)
    return 0


# ------------------------------------------------------------ the commands


def _mark(options: argparse.Namespace) -> int:
    selection = {
        "urls": options.url, "prefixes": options.prefix, "hosts": options.host,
        "tags": options.tag, "everything": options.everything,
    }  # fmt: skip
    if not any(selection.values()):
        raise Unanswered("say what: --url, --prefix, --host, --tag or --everything", 2)
    answer = ask(options, "POST", options.path, body=selection)
    missing = answer["not_written_down_by"]
    _told(options, answer, lambda _: print("done: it is in force in every tier"))
    if missing:
        print(
            f"edgeproxy: the tier {', '.join(missing)} could not write this down; it is tried "
            "again, but a restart before that may bring back what is on disk",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _ls(options: argparse.Namespace) -> int:
    query = [("prefix", options.prefix), ("limit", options.limit)]
    return _told(options, ask(options, "GET", "/cache/objects", query), _tell_list)


def _tell_list(answer: dict[str, Any]) -> None:
    rows = [("TIER", "STATUS", "BYTES", "AGE", "FRESH FOR", "URL")]
    rows += [
        (
            one["tier"], str(one["status"]), str(one["bytes"]), span(one["age_s"]),
            span(one["fresh_for_s"]), printable(one["url"]),
        )
        for one in answer["objects"]
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*map(str.ljust, row, widths), row[5]]))


def _show(options: argparse.Namespace) -> int:
    return _told(options, ask(options, "GET", "/cache/object", [("url", options.url)]), _tell_each)


def _tell_each(answer: dict[str, Any]) -> None:
    for one in answer["objects"]:
        fresh = one["fresh_for_s"]
        state = f"fresh for {span(fresh)}" if fresh > 0 else f"stale since {span(-fresh)}"
        print(f"{printable(one['url'])}  in {one['tier']}, {one['bytes']} bytes, {state}")
        if one["gone_since_s"] is not None:
            print(f"  kept, though the origin has it no more since {span(one['gone_since_s'])}")
        if one["tags"]:
            print(f"  tags: {printable(', '.join(one['tags']))}")
        for name, value in one["vary"].items():
            print(f"  for {name}: {printable(str(value)) if value is not None else '(absent)'}")
        print(f"  {one['status']}")
        for name, value in one["headers"]:
            print(f"  {printable(name)}: {printable(value)}")
        print()


def _stats(options: argparse.Namespace) -> int:
    return _told(options, ask(options, "GET", "/cache/stats"), _tell_stats)


def _tell_stats(answer: dict[str, Any]) -> None:
    for tier in answer["tiers"]:
        share = tier["bytes"] / tier["max_bytes"] if tier["max_bytes"] else 0
        more = {
            key: value for key, value in tier.items()
            if key not in ("name", "objects", "bytes", "max_bytes")
        }  # fmt: skip
        print(f"{tier['name']}: {tier['objects']} objects, {tier['bytes']} bytes, {share:.0%} full")
        if more:
            print("  " + ", ".join(f"{key} {value}" for key, value in more.items()))
    marks = answer["marks"]
    if marks:
        print("purges heeded: " + ", ".join(f"{count} {kind}" for kind, count in marks.items()))


def _verify(options: argparse.Namespace) -> int:
    answer = ask(options, "POST", "/cache/verify")
    _told(options, answer, _tell_checked)
    return 1 if any(tier["damaged"] for tier in answer["tiers"]) else 0


def _tell_checked(answer: dict[str, Any]) -> None:
    for tier in answer["tiers"]:
        damaged = tier["damaged"]
        print(f"{tier['tier']}: {tier['objects']} objects are whole, {len(damaged)} were not")
        for url in damaged:
            print(f"  {printable(url)}")


def _why(options: argparse.Namespace) -> int:
    query = [("url", options.url), *(("header", text) for text in options.header)]
    return _told(options, ask(options, "GET", "/cache/why", query), _tell_why)


def _tell_why(answer: dict[str, Any]) -> None:
    stored = answer["stored_now"]
    print(f"{printable(answer['url'])}: {'stored' if stored else 'not stored'} at the moment")
    if stored:
        print(f"  in {stored['tier']}, with {span(stored['fresh_for_s'])} of freshness left")
    route, origin = answer["route"] or "none", answer["origin"] or "none"
    print(f"  route {route}, rule {answer.get('rule') or 'none'}, origin {origin}")
    print(f"  what the origin answers now ({answer['status']}): {printable(answer['words'])}")
    if answer["source"]:
        print(f"  source: {answer['source']}")


def span(seconds: float) -> str:
    """A time span for people: `45s`, `10m`, `3.5h`, `12d`."""
    sign, left = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if left >= size:
            return f"{sign}{left / size:.1f}".removesuffix(".0") + unit
    return f"{sign}{left:.0f}s"


def printable(text: str) -> str:
    """`text` without what could steer a terminal: it comes from origins and clients."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
