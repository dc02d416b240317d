"""Flow files, as mitmproxy writes and reads them: they open in mitmweb, too.

What edgeproxy knows besides stands in the flow's metadata, under the key `edgeproxy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, BinaryIO, cast

from mitmproxy import connection, http
from mitmproxy.io import compat, tnetstring
from mitmproxy.version import FLOW_FORMAT_VERSION

from edgeproxy.addresses import parse_address
from edgeproxy.engine.message import reason_phrase
from edgeproxy.http import Headers
from edgeproxy.traffic import Fetched, Recalled, Unreadable, Visit
from edgeproxy.traffic.reading import UNREADABLE
from edgeproxy.traffic.visit import UNKNOWN_CLIENT, visit

MAX_FLOW_BYTES = 64 * 1024 * 1024  # recordings of others hold bodies, and all of a flow is read

_KEY = "edgeproxy"
_PORTS = {"http": 80, "https": 443}


# ------------------------------------------------------------ writing


def written(seen: Visit) -> bytes:
    """`seen` as a flow. Bodies are left out, which mitmproxy shows as missing content."""
    state = _flow(seen).get_state()
    state["metadata"] = {_KEY: _metadata(seen)}
    return tnetstring.dumps(cast(tnetstring.TSerializable, state))


def _metadata(seen: Visit) -> dict[str, Any]:
    fetched = seen.fetched
    return {
        "bytes": seen.bytes,
        "client": str(seen.client),
        "recalled": asdict(seen.recalled),
        "fetched": None
        if fetched is None
        else {
            "asked": fetched.asked,
            "status": fetched.status,
            "error": fetched.error,
            "headers": b"\r\n".join(b"%b: %b" % pair for pair in fetched.headers.fields),
        },
    }


def _flow(seen: Visit) -> http.HTTPFlow:
    host, _, port = seen.authority.rpartition(":")
    host, port = (host, port) if port.isdigit() and host else (seen.authority, "")
    number = int(port or _PORTS[seen.scheme])
    client = connection.Client(
        peername=(str(seen.client), 0), sockname=("", 0), timestamp_start=seen.at_s
    )
    flow = http.HTTPFlow(client, connection.Server(address=(host, number)))
    flow.timestamp_created = seen.at_s
    target = seen.path if seen.query is None else f"{seen.path}?{seen.query}"
    flow.request = http.Request(
        host, number, seen.method.encode(), seen.scheme.encode(), b"", target.encode(),
        b"HTTP/1.1", http.Headers(seen.headers.fields), None, None, seen.at_s, seen.at_s,
    )  # fmt: skip
    flow.response = http.Response(
        b"HTTP/1.1", seen.status, reason_phrase(seen.status),
        http.Headers((seen.answer or Headers()).fields), None, None, seen.at_s, seen.at_s,
    )  # fmt: skip
    return flow


# ------------------------------------------------------------ reading


class _Bounded:
    """A file of which nobody reads more than MAX_FLOW_BYTES at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, length: int) -> bytes:
        if length > MAX_FLOW_BYTES:
            raise ValueError(f"a flow of {length} bytes; at most {MAX_FLOW_BYTES} are read")
        data = self._file.read(length)
        if length > 1 and len(data) < length:
            raise ValueError("the file ends within a flow")
        return data


def flows(file: BinaryIO) -> Iterator[Visit | None]:
    """The requests of a flow file; None for those that cannot be read.

    mitmproxy's own `FlowReader` makes objects of every flow, which takes longer than deciding what
    becomes of it; what is needed stands in the state that they are made of.
    """
    bounded = cast(BinaryIO, _Bounded(file))
    while file.peek(1):  # type: ignore[attr-defined]
        try:
            state = _loaded(bounded)
        except UNREADABLE as error:
            raise Unreadable(f"no flow of mitmproxy: {str(error)[:200]}") from None
        try:
            yield _visit(state) if state["type"] == "http" else None
        except UNREADABLE:
            yield None


_UNUSED = frozenset(("server_conn", "backup", "websocket", "error", "id", "comment"))


def _loaded(file: BinaryIO) -> Mapping[Any, Any]:
    """The state of the next flow. Of a flow of ours only what is needed is parsed: a third of the
    time."""
    data = memoryview(_record(file))
    state: dict[Any, Any] = {}
    unparsed: dict[Any, memoryview] = {}
    while data:
        key, data = tnetstring.pop(data)
        length, rest = tnetstring.split(data, b":")
        unparsed[key], data = data, rest[length + 1 :]
    for key in ("metadata", "version"):
        state[key] = tnetstring.pop(unparsed.pop(key))[0]
    is_ours = state["version"] == FLOW_FORMAT_VERSION and _KEY in state["metadata"]
    for key, value in unparsed.items():
        if not is_ours or (key not in _UNUSED and key != "client_conn"):
            state[key] = tnetstring.pop(value)[0]
    if state["version"] != FLOW_FORMAT_VERSION:
        migrated: Mapping[Any, Any] = compat.migrate_flow(state)
        return migrated
    return state


def _record(file: BinaryIO) -> bytes:
    """The content of the next value, which has to be a dictionary."""
    prefix = b""
    while (char := file.read(1)).isdigit() and len(prefix) < 12:
        prefix += char
    if char != b":" or not prefix:
        raise ValueError("the length of a flow is missing")
    data = file.read(int(prefix))
    if file.read(1) != b"}":
        raise ValueError("a flow is a dictionary")
    return data


def _visit(state: Mapping[Any, Any]) -> Visit:
    request, response = state["request"], state["response"]
    told: Mapping[str, Any] = state["metadata"].get(_KEY) or {}
    headers = _headers(request["headers"])
    scheme = str(request["scheme"], "ascii")
    peer = None if told else state["client_conn"]["peername"]
    answer = _headers(response["headers"])
    return visit(
        str(request["method"], "ascii"),
        headers.get("host") or f"{request['host']}:{request['port']}",
        str(request["path"], "ascii"),
        scheme=scheme,
        at_s=float(request["timestamp_start"]),
        status=int(response["status_code"]),
        headers=headers,
        client=parse_address(told.get("client") or (peer and peer[0]) or "") or UNKNOWN_CLIENT,
        answer=answer,
        bytes=int(told["bytes"]) if told else len(response["content"] or b""),
        fetched=_fetched(told.get("fetched")),
        recalled=_recalled(told.get("recalled")),
    )


def _headers(fields: Any) -> Headers:
    pairs = [(name, value) for name, value in fields]
    if not all(isinstance(name, bytes) and isinstance(value, bytes) for name, value in pairs):
        raise TypeError("fields that are no bytes")
    return Headers(pairs)


def _fetched(told: Any) -> Fetched | None:
    if told is None:
        return None
    asked, status, error = told["asked"], told["status"], told["error"]
    if not (isinstance(asked, str) and isinstance(error, str) and 100 <= int(status) <= 599):
        raise TypeError("an answer of an origin that is none")
    lines = told["headers"].split(b"\r\n") if told["headers"] else ()
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    return Fetched(asked, int(status), _headers(fields), error)


def _recalled(told: Any) -> Recalled | None:
    if told is None:
        return None
    if not all(isinstance(value, str | bool | None) for value in told.values()):
        raise TypeError("a decision that is none")
    return Recalled(**told)
