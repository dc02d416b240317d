"""`edgeproxy pages DIR`: the command line."""

import argparse
import asyncio
import errno
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .faults import Fault, parse_fault
from .messages import Answer, Request
from .server import Pages

DEFAULT_LISTEN = "127.0.0.1:8081"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edgeproxy pages`; `main` takes what they parse to."""
    add = parser.add_argument
    add("directory", metavar="DIR", help="the folder to show, as built for publishing")
    add(
        "--listen",
        metavar="ADDRESS:PORT",
        default=DEFAULT_LISTEN,
        help="where to listen; port 0 takes any free one (default: %(default)s)",
    )
    add("--base", metavar="PATH", default="/", help="/project/ for a project site (default: /)")
    add("--host", metavar="NAME", help="the site's github.io name; others get 404 (default: any)")
    add("--domain", metavar="NAME", help="the custom domain; the github.io name redirects to it")
    add("--enforce-https", action="store_true", help="redirect http:// to https://")
    add(
        "--slash-redirect-cacheable",
        action="store_true",
        help="give the redirect from /dir to /dir/ a Cache-Control",
    )
    add(
        "--permissions-policy",
        action="store_true",
        help="send the permissions-policy header that Pages sent until 2024",
    )
    add("--edge-region", metavar="NAME", help="send x-github-edge-region, such as fra")
    add(
        "--cdn", action="store_true", help="simulate the CDN cache: Age, hits, old pages for 10 min"
    )
    add(
        "--replicas",
        metavar="N",
        type=int,
        choices=(1, 2),
        default=1,
        help="1 or 2; with 2, times and ETags alternate (default: 1)",
    )
    add(
        "--fault",
        metavar="PATTERN=KIND:VALUE",
        action="append",
        default=[],
        help="let paths fail, such as '/slow/**=delay:2s'; may be repeated",
    )
    add("--quiet", action="store_true", help="no line per request")


def main(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; 0 then, 2 if the arguments cannot be served."""
    try:
        pages = Pages(
            folder(args.directory),
            base=args.base,
            host=args.host,
            domain=args.domain,
            enforce_https=args.enforce_https,
            slash_redirect_cacheable=args.slash_redirect_cacheable,
            permissions_policy=args.permissions_policy,
            edge_region=args.edge_region,
            cdn=args.cdn,
            replicas=args.replicas,
            listen=args.listen,
        )
        set_faults(pages, args.fault)
    except ValueError as problem:
        return complain(str(problem))
    if not args.quiet:
        pages.on_answer = report
    try:
        asyncio.run(serve(pages, args.directory))
    except OSError as problem:
        return complain(cannot_listen(args.listen, problem))
    except KeyboardInterrupt:  # before serve() could ask for it otherwise
        pass
    return 0


def folder(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    what = "is not a folder" if path.exists() else "does not exist"
    raise ValueError(f"{name!r} {what}; name the folder that holds the built site")


def set_faults(pages: Pages, texts: Sequence[str]) -> None:
    """Set them last to first, so that the first that fits a path is the one that acts."""
    faults = [parse_fault(text) for text in texts]
    for number, (pattern, fault) in reversed(list(enumerate(faults))):
        if pattern in (earlier for earlier, _ in faults[:number]):
            raise ValueError(f"two faults for {pattern!r}; join them: '{pattern}=KIND:VALUE,KIND'")
        pages.set_fault(pattern, fault)


def cannot_listen(listen: str, problem: OSError) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"{listen} is in use by another program; choose another port: --listen 127.0.0.1:0"
    if problem.errno == errno.EACCES:
        return f"{listen} is not allowed; choose a port above 1023: --listen {DEFAULT_LISTEN}"
    return f"cannot listen on {listen}: {problem.strerror}; use --listen {DEFAULT_LISTEN}"


def complain(problem: str) -> int:
    print(f"pages: {problem}", file=sys.stderr)
    return 2


async def serve(pages: Pages, directory: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows; Ctrl-C then raises KeyboardInterrupt
            loop.add_signal_handler(number, stopped.set)
    async with pages:
        print(
            f"{directory} is at {pages.url} as GitHub Pages would show it; Ctrl-C stops", flush=True
        )
        await stopped.wait()


def report(request: Request, answer: Answer, fault: Fault | None) -> None:
    """One line per request. Bytes outside ASCII are escaped, so that none can steer a terminal."""
    target = request.target.encode("ascii", "backslashreplace").decode()
    spoiled = " (fault)" if fault else ""
    print(f"{answer.status} {request.method} {target} {len(answer.body)} B{spoiled}", flush=True)
