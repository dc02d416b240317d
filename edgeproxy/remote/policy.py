"""The commands about the policies of a running edgeproxy: look, go back, try one, promote it."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeproxy.log_formats import printable
from edgeproxy.policy.files import sources
from edgeproxy.policytest.cases import find_files
from edgeproxy.remote.asking import Unanswered, add_access, ask, told

Command = Callable[[argparse.Namespace], int]


def add_command(commands: Any) -> None:
    """`policy`, to a set of sub-parsers."""
    policy = commands.add_parser("policy", help="see and change the policy of a running edgeproxy")
    actions = policy.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, command: Command, what: str) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=what)
        action.set_defaults(command=command, action=name)
        return action

    looking = [
        add("status", _status, "show what is in force and what is tried, with its differences"),
        add("history", _history, "list the policies that were in force"),
        add("show", _show, "print the files of the policy in force, or of a former one"),
    ]
    looking[-1].add_argument("version", nargs="?", metavar="VERSION", help="its number or version")
    changing = [
        add("reload", _change, "read the policy files again"),
        add("rollback", _rollback, "put a former policy in force again"),
        add("shadow", _try, "evaluate a policy beside the one in force, and count differences"),
        add("canary", _try, "let a policy decide for a share of the visitors"),
        add("promote", _change, "put the policy that is tried in force"),
        add("abort", _change, "end the trial"),
    ]
    _, rollback, shadow, canary, *_ = changing
    rollback.add_argument(
        "version", nargs="?", metavar="VERSION", help="its number or version; else the one before"
    )
    for trial in (shadow, canary):
        trial.add_argument(
            "policy", nargs="*", type=Path, help="policy files; none: the policy on trial"
        )
    canary.add_argument(
        "--percent", type=float, required=True, metavar="N", help="of the visitors, above 0"
    )
    for action in changing:
        action.add_argument("--by", default=_me(), metavar="NAME", help="who, for the history")
        action.add_argument("--why", default="", metavar="TEXT", help="why, for the history")
    for action in (*looking, *changing):
        add_access(action)


def _me() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return ""


# ------------------------------------------------------------ changing


def _change(options: argparse.Namespace) -> int:
    return _changed(options, {})


def _rollback(options: argparse.Namespace) -> int:
    return _changed(options, {"version": options.version} if options.version else {})


def _try(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {}
    if options.policy:
        body = {"files": _texts(options.policy), "tests": _texts(find_files(options.policy))}
    if options.action == "canary":
        body["percent"] = options.percent
    return _changed(options, body)


def _changed(options: argparse.Namespace, body: dict[str, Any]) -> int:
    body |= {"by": options.by, "why": options.why}
    return told(options, ask(options, "POST", f"/policy/{options.action}", body=body), _tell_status)


def _texts(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Files as they are sent: names and texts. PolicyError if one cannot be read."""
    found = []
    for name, content in sources(paths) if paths else ():
        try:
            text = content if isinstance(content, str) else content.decode()
        except UnicodeDecodeError:
            raise Unanswered(f"{name} is not UTF-8; save the file in that encoding", 2) from None
        found.append({"name": name, "text": text})
    return found


# ------------------------------------------------------------ looking


def _status(options: argparse.Namespace) -> int:
    return told(options, ask(options, "GET", "/policy/status"), _tell_status)


def _tell_status(answer: dict[str, Any]) -> None:
    in_force, tried = answer["in_force"], answer["candidate"]
    print(f"in force: {in_force['version']}, {_origin(in_force)}")
    if answer["files_are_other"]:
        print("  the policy files say something else; a reload or a restart puts them in force")
    if tried is not None:
        _tell_candidate(tried)


def _tell_candidate(tried: dict[str, Any]) -> None:
    how = f"on {tried['percent']:g} % of the visitors" if tried["percent"] else "in shadow"
    print(f"on trial: {tried['version']} {how}, since {tried['since']}{_who(tried)}")
    for whose, counts in (("its", tried["answers"]), ("the other's", tried["answers_in_force"])):
        if counts and tried["percent"]:
            print(f"  {whose} answers: " + ", ".join(f"{n} {of}" for of, n in counts.items()))
    shadow = tried["shadow"]
    if shadow["compared"] or not tried["percent"]:
        beside = (("dropped", "not compared for lack of time"), ("left_out", "of other methods"),
                  ("failed", "failed"), ("waiting", "waiting"))  # fmt: skip
        more = "".join(f", {shadow[key]} {words}" for key, words in beside if shadow[key])
        print(f"  in shadow: {shadow['compared']} compared, {shadow['different']} different{more}")
    for kind in shadow["kinds"]:
        print(f"  {kind['kind'].replace('_', ' ')}: {kind['count']}")
        for one in kind["examples"]:
            print(f"    {one['method']} {printable(one['url'])}")
            print(f"      {printable(one['before'])}  ->  {printable(one['after'])}")


def _origin(version: dict[str, Any]) -> str:
    return f"{version['event']} at {version['at']}{_who(version)}"


def _who(change: dict[str, Any]) -> str:
    why = f": {printable(change['why'])}" if change["why"] else ""
    return f", by {printable(change['by'])}{why}"


def _history(options: argparse.Namespace) -> int:
    return told(options, ask(options, "GET", "/policy/history"), _tell_history)


def _tell_history(answer: dict[str, Any]) -> None:
    print(f"{'#':>4}  {'VERSION':<12}  {'SINCE':<20}  {'BY':<9}  WHO AND WHY")
    for one in answer["versions"]:
        who = _who(one).removeprefix(", by ")
        row = f"{one['number']:>4}  {one['version']}  {one['at']}  {one['event']:<9}  {who}"
        print(row.rstrip())


def _show(options: argparse.Namespace) -> int:
    query = [("version", options.version)] if options.version else []
    return told(options, ask(options, "GET", "/policy", query), _tell_files)


def _tell_files(answer: dict[str, Any]) -> None:
    """The texts as they are, each below its name: good YAML, and so a way to get them back."""
    for file in answer["files"]:
        print(f"# {printable(file['name'])} of policy {answer['version']}")
        print(file["text"].removesuffix("\n"))
