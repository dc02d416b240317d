"""The commands about the cache of a running edgeproxy: purge, invalidate, look."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from edgeproxy import simulate
from edgeproxy.log_formats import printable
from edgeproxy.remote.asking import Unanswered, add_access, ask, span, told


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
        add_access(marking)

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
        add_access(view)
    simulated = views.add_parser("simulate", help="predict from access logs what a size would do")
    simulated.set_defaults(command=simulate.main)
    simulate.add_arguments(simulated)


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
    told(options, answer, lambda _: print("done: it is in force in every tier"))
    if missing:
        print(
            f"edgeproxy: the tier {', '.join(missing)} could not write this down; it is tried "
            "again, but a restart before that may bring back what is on disk",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _ls(options: argparse.Namespace) -> int:
    query = [("prefix", options.prefix), ("limit", options.limit)]
    return told(options, ask(options, "GET", "/cache/objects", query), _tell_list)


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
    return told(options, ask(options, "GET", "/cache/object", [("url", options.url)]), _tell_each)


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
    return told(options, ask(options, "GET", "/cache/stats"), _tell_stats)


def _tell_stats(answer: dict[str, Any]) -> None:
    for tier in answer["tiers"]:
        share = tier["bytes"] / tier["max_bytes"] if tier["max_bytes"] else 0
        more = {
            key: value for key, value in tier.items()
            if key not in ("name", "shared", "objects", "bytes", "max_bytes")
        }  # fmt: skip
        print(f"{tier['name']}: {tier['objects']} objects, {tier['bytes']} bytes, {share:.0%} full")
        if more:
            print("  " + ", ".join(f"{key} {value}" for key, value in more.items()))
    marks = answer["marks"]
    if marks:
        print("purges heeded: " + ", ".join(f"{count} {kind}" for kind, count in marks.items()))


def _verify(options: argparse.Namespace) -> int:
    answer = ask(options, "POST", "/cache/verify")
    told(options, answer, _tell_checked)
    return 1 if any(tier["damaged"] for tier in answer["tiers"]) else 0


def _tell_checked(answer: dict[str, Any]) -> None:
    for tier in answer["tiers"]:
        damaged = tier["damaged"]
        print(f"{tier['tier']}: {tier['objects']} objects are whole, {len(damaged)} were not")
        for url in damaged:
            print(f"  {printable(url)}")


def _why(options: argparse.Namespace) -> int:
    query = [("url", options.url), *(("header", text) for text in options.header)]
    return told(options, ask(options, "GET", "/cache/why", query), _tell_why)


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
