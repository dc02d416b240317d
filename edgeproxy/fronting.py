"""Standing in front of an origin: what is sent to it, and what of its answers passes on.

Pure functions. The rules for GitHub Pages are those of its observed behaviour: it chooses a site
by `Host`, redirects with absolute URLs, and adds fields of its CDN to every answer.
"""

from __future__ import annotations

import functools
import hashlib
import re
import zlib
from urllib.parse import urlsplit

from edgeproxy.caching.variants import accepted_coding
from edgeproxy.errors import ClientError, UpstreamError
from edgeproxy.http import Body, Exchange, Headers, Origin, Request, Response, Target

VIA = "1.1 edgeproxy"
MAX_PAGE_BYTES = 64 * 1024

# Fields that are about one connection, not about the message (RFC 9110, section 7.6.1).
HOP_BY_HOP = (
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
    "te", "trailer", "transfer-encoding", "upgrade",
)  # fmt: skip

# What a static origin does not need and must not learn: personal data, and other proxies' claims.
_PERSONAL = ("cookie", "authorization")
_FORWARDED = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto",
    "x-forwarded-server", "x-real-ip", "via", "expect",
)  # fmt: skip

# What some servers take for the host, path, method or address in place of the real one. No cache
# key holds it, so that one client could choose what others are shown.
_OVERRIDES = (
    "cf-connecting-ip", "cluster-client-ip", "fastly-client-ip", "front-end-https", "proxy",
    "true-client-ip", "x-accel-redirect", "x-client-ip", "x-cluster-client-ip",
    "x-envoy-original-path", "x-forwarded", "x-forwarded-by", "x-forwarded-path",
    "x-forwarded-prefix", "x-forwarded-protocol", "x-forwarded-scheme", "x-forwarded-ssl",
    "x-host", "x-http-host-override", "x-http-method", "x-http-method-override",
    "x-method-override", "x-original-host", "x-original-method", "x-original-uri",
    "x-original-url", "x-rewrite-url", "x-url-scheme",
)  # fmt: skip
_OURS = ("host", "content-length", "edge-explain", "cdn-loop")  # the third is a token for us

_LOOP_MEMBER = re.compile(r'(?:^|,)[ \t]*edgeproxy[ \t]*;[ \t]*id="?([0-9a-f]{12})"?[ \t]*(?=,|$)')
MAX_HOPS = 16  # of edgeproxies, one behind the other

_NEVER_SENT_ON = frozenset(
    name.encode() for name in (*_OURS, *HOP_BY_HOP, *_FORWARDED, *_OVERRIDES)
)
_NEVER_SENT_TO_STATIC = _NEVER_SENT_ON | {name.encode() for name in _PERSONAL}

# Fields of GitHub Pages and its CDN that say nothing to a visitor, and those which are the
# policy's to set, not the origin's.
_PAGES_INTERNAL = (
    "x-served-by", "x-cache", "x-cache-hits", "x-timer", "x-fastly-request-id",
    "x-github-request-id", "x-proxy-cache", "x-origin-cache", "x-github-edge-region",
    "expires", "server", "strict-transport-security", "permissions-policy", "via",
)  # fmt: skip


def upstream_request(exchange: Exchange, target: Target, origin: Origin) -> Request:
    """The request as `origin` gets it: its own name, its base path, nothing of other hops."""
    request = exchange.request
    headers = request.headers.copy()
    headers.drop(_NEVER_SENT_TO_STATIC if origin.static else _NEVER_SENT_ON)
    if not origin.static:
        headers.set("x-forwarded-for", str(exchange.client))
        headers.set("x-forwarded-host", request.authority)
        headers.set("x-forwarded-proto", request.scheme)
    headers.set("accept-encoding", asked_coding(request.headers))
    headers.set("via", VIA)
    headers.add("cdn-loop", loop_members(exchange, origin))
    return Request(
        method=request.method,
        authority=origin.authority,
        path=origin_path(target.path, origin),
        query=target.query,
        headers=headers,
        body=Body() if origin.static else request.body,
        scheme=origin.scheme,
        on_interim=request.on_interim,
    )


def loop_members(exchange: Exchange, origin: Origin) -> str:
    """What `CDN-Loop` says to `origin`: the proxies of our kind that have had this request, us last
    (RFC 8586).

    The id is that of the origin: a request that comes back after `origin` was asked goes in
    circles, whichever process or machine had it first. Members of others are not handed on: no key
    holds them, and a visitor could invent one that makes an origin refuse a page for everybody.
    Ours can do no more than have one request refused, with a status that says nothing of an
    origin's health and is never stored. Raises ClientError (508).
    """
    own, member = _loop_member(origin.host, origin.port, origin.base)
    said = exchange.request.headers.joined("cdn-loop")
    if said is None:
        return member
    before = _LOOP_MEMBER.findall(said)
    if own in before or len(before) >= MAX_HOPS:
        exchange.error = f"origin {origin.name!r} leads back here; name another place in its url"
        raise ClientError(508, "this request has come through here before")
    return ", ".join([*(f"edgeproxy;id={hop}" for hop in before), member])


@functools.lru_cache(maxsize=1024)
def _loop_member(host: str, port: int, base: str) -> tuple[str, str]:
    """The id of an origin, and our member of `CDN-Loop` with it."""
    id = hashlib.blake2b(f"{host}:{port}{base}".encode(), digest_size=6).hexdigest()
    return id, f"edgeproxy;id={id}"


def asked_coding(headers: Headers) -> str:
    """`gzip` or `identity`: all that Pages has, so that the cache keeps two variants at most.

    A request for a range gets identity, so that no range is ever cut from compressed bytes.
    """
    return (
        "identity"
        if "range" in headers
        else accepted_coding(headers.joined("accept-encoding") or "")
    )


def origin_path(path: str, origin: Origin) -> str:
    """The public `path` under the origin's base.

    A path that has the base already is left alone: pages of a project site link to themselves
    with it (`/project/assets/...`), and those links work under the public name too.
    """
    if origin.base == "/" or path.startswith(origin.base):
        return path
    return origin.base + path.lstrip("/")


def public_path(path: str, origin: Origin) -> str:
    """The inverse: `path` of the origin without its base.

    What is left begins with one slash: after two, browsers expect the name of a host.
    """
    if origin.base == "/":
        return path
    if path.startswith(origin.base):
        return "/" + path[len(origin.base) :].lstrip("/\\")
    return "/" if path == origin.base.rstrip("/") else path


def clean_response(response: Response, origin: Origin) -> None:
    """Take out what belongs to the connection to the origin, and what Pages' CDN adds."""
    named = [
        name.strip(" \t")
        for line in response.headers.get_all("connection")
        for name in line.split(",")
    ]
    response.headers.remove(*HOP_BY_HOP, *named)
    if origin.static:
        response.headers.remove(*_PAGES_INTERNAL)


def says_no_site(page: bytes, coding: str | None) -> bool:
    """Whether a 404 is Pages' own for a host without a site, not one of the site's."""
    if coding == "gzip":
        try:
            page = zlib.decompressobj(31).decompress(page, MAX_PAGE_BYTES)
        except zlib.error:
            return False
    elif coding not in (None, "identity"):
        return False
    return b"<title>Site not found" in page[:MAX_PAGE_BYTES]


def settle_location(exchange: Exchange, response: Response, origin: Origin) -> None:
    """Turn a redirect to the origin into one under the public name; others stay as they are.

    Raises UpstreamError for a redirect that would bring the visitor back to the same URL: the
    loop that a custom domain set on Pages, or an http origin that insists on https, makes. Apps
    redirect to themselves for good reasons: after a form, with a cookie, to https.
    """
    location = response.headers.get("location")
    if location is None or not 300 <= response.status < 400:
        return
    try:
        parts = urlsplit(location)
        port = parts.port
    except ValueError:
        return
    if parts.scheme not in ("http", "https", "") or not (parts.hostname or location[:1] == "/"):
        return
    request = exchange.request
    host = (parts.hostname or "").lower().rstrip(".")
    usual_port = port in (None, 80, 443)
    is_origin = not host or (host == origin.host and (usual_port or port == origin.port))
    is_public = host == request.host and (usual_port or request.authority.endswith(f":{port}"))
    if not is_origin and not is_public:
        return
    path = public_path(parts.path or "/", origin) if is_origin else parts.path or "/"
    target = path if not parts.query else f"{path}?{parts.query}"
    if origin.static:
        loops = target == request.target or (is_public and path == request.path)
    else:
        is_to_https = bool(host) and parts.scheme == "https" and origin.scheme == "http"
        loops = is_origin and is_to_https and target == request.target
    if loops:
        raise UpstreamError(origin.name, "proxy_loop_detected", loop_reason(location, origin))
    if is_origin:
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        base = f"{request.scheme}://{request.authority}" if host else ""
        response.headers.set("location", f"{base}{target}{fragment}")


def loop_reason(location: str, origin: Origin) -> str:
    """What to change when an origin redirects every visitor back to where they came from."""
    parts = urlsplit(location)
    if (parts.hostname or "") == origin.host and origin.scheme == "http":
        return f"it redirects to https; write its url as https://{origin.host}{origin.base}"
    return (
        f"it redirects to {parts.hostname}, which loops if that is the name that edgeproxy "
        f"serves; remove that custom domain in the Pages settings of the repository, or give "
        f"Pages another name, such as origin.{parts.hostname}, and use that in the origin's url"
    )


def keep_apart(exchange: Exchange, response: Response) -> None:
    """Tell caches behind the proxy what the answer depended on, so that they do not mix visitors.

    Request fields go into `Vary`; where no field tells (an address, a cookie) the answer becomes
    `private`: a browser may keep it, a shared cache may not.
    """
    varies_by = exchange.varies_by
    if not varies_by:
        return
    if "*" in varies_by or "cookie" in varies_by:
        control = (response.headers.joined("cache-control") or "").lower()
        if "private" not in control and "no-store" not in control:
            kept = [
                member.strip(" \t")
                for member in control.split(",")
                if member.strip(" \t")
                and not member.strip(" \t").startswith(("public", "s-maxage"))
            ]
            response.headers.set("cache-control", ", ".join(["private", *kept]))
    present = {
        name.strip(" \t") for name in (response.headers.joined("vary") or "").lower().split(",")
    }
    for name in sorted(varies_by - {"*"} - present):
        response.headers.append("vary", name)
