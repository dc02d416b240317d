"""A question to the admin listener of a running edgeproxy, and its answer for people."""

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


def add_access(parser: argparse.ArgumentParser) -> None:
    """The options that say where to ask, and with which token."""
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
        code, reason = said.get("code"), str(said.get("message", response.status))
        if code == "policy-faults":
            reason = f"the policy is refused, and nothing has changed\n{reason}"
        raise Unanswered(reason, 2 if code in ("bad-request", "policy-faults") else 1)
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


def told(
    options: argparse.Namespace, answer: dict[str, Any], tell: Callable[[dict[str, Any]], None]
) -> int:
    """Print `answer`, as `tell` does or as JSON. The exit status."""
    if options.json:
        json.dump(answer, sys.stdout, indent=2)
        print()
    else:
        tell(answer)
    return 0


def span(seconds: float) -> str:
    """A time span for people: `45s`, `10m`, `3.5h`, `12d`."""
    sign, left = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if left >= size:
            return f"{sign}{left / size:.1f}".removesuffix(".0") + unit
    return f"{sign}{left:.0f}s"
