"""From a request to an answer by the rules of HTTP: pure functions of request, site and time.

Two steps, as two machines do it. `represent` is the web server with the files: which site, which
file, compressed or not. `deliver` is the CDN in front: it picks ranges, says "not modified" and
adds its own headers, to a page just fetched or to one it stored.
"""

import hashlib
import ipaddress
import random
from calendar import timegm
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email.utils import formatdate, parsedate
from functools import lru_cache
from urllib.parse import quote

from .content_types import UNKNOWN
from .error_pages import (
    DEFAULT_404_ETAG,
    DEFAULT_404_POLICY,
    PAGE_NOT_FOUND,
    SITE_NOT_FOUND,
    cdn_page,
    default_404,
    nginx_page,
)
from .messages import Answer, Fields, Headers, Request
from .ranges import Span, parse_range
from .site import File, Folder, Site, normalised

LIFETIME_S = 600  # `Cache-Control: max-age=600`, on every page of every site
UNSTATED_LIFETIME_S = 3600  # what the CDN assumes for redirects and 404s, which state none

HTML = "text/html; charset=utf-8"
NGINX: Fields = (("Server", "GitHub.com"),)
CDN_ERROR: Fields = (("Server", "Varnish"),)
CORS: Fields = (("Access-Control-Allow-Origin", "*"),)
HSTS: Fields = (("Strict-Transport-Security", "max-age=31556952"),)
NO_COHORTS: Fields = (("permissions-policy", "interest-cohort=()"),)

# What a 304 repeats of the page that it confirms; the ETag goes before.
IN_304 = {
    "cache-control",
    "expires",
    "x-proxy-cache",
    "x-github-request-id",
    "x-github-edge-region",
}


@dataclass(frozen=True, slots=True)
class Switches:
    """How a site is published. `base` starts and ends with a slash."""

    base: str = "/"
    host: str | None = None  # the `user.github.io` name; None: any name is this site's
    domain: str | None = None  # the custom domain
    enforce_https: bool = False
    slash_redirect_cacheable: bool = False
    permissions_policy: bool = False
    edge_region: str | None = None


@dataclass(frozen=True, slots=True)
class Representation:
    """A whole answer of the web server, before the CDN cuts, confirms or counts anything."""

    status: int
    headers: Fields
    body: bytes
    served_at: float
    etag: str | None = None  # strong, also where the body is compressed
    modified_at: int | None = None
    cdn_lifetime_s: int = 0  # 0: the CDN does not keep it


@dataclass(frozen=True, slots=True)
class Passage:
    """How an answer passed the CDN: how old its copy is and how often that was used."""

    age_s: int = 0
    hits: int = 0  # 0: fetched for this request


def answer(
    request: Request, site: Site, switches: Switches, *, now: float, replica: int = 0
) -> Answer:
    """The answer as sent, with nothing stored in the CDN."""
    whole = represent(request, site, switches, now=now, replica=replica)
    return deliver(whole, request, Passage(), now=now)


# ---------------------------------------------------------------- the web server


def represent(
    request: Request, site: Site, switches: Switches, *, now: float, replica: int = 0
) -> Representation:
    """What the web server has for `request`. Read it top to bottom."""
    path = normalised(request.path)
    if path is None:
        return error(400, now)
    if request.method in ("TRACE", "CONNECT"):
        return error(405, now)
    base = settle_host(request, path, switches, now)
    if isinstance(base, Representation):
        return base
    if path + "/" == base:
        return slash_redirect(request, path, switches, now)
    if not path.startswith(base):
        return not_found(request, None, now, title=SITE_NOT_FOUND)
    match site.resolve(path.removeprefix(base)):
        case Folder():
            return slash_redirect(request, path, switches, now)
        case File() as file if request.method in ("GET", "HEAD"):
            return found(request, file, replica, switches, now)
        case File():
            return error(405, now)
        case _:
            return not_found(request, site.file("404.html"), now, replica=replica)


def settle_host(
    request: Request, path: str, switches: Switches, now: float
) -> str | Representation:
    """The base path under which the site is seen at this host, or what to say instead."""
    name = host_name(request.headers.get("host", ""))
    at_domain = name == switches.domain
    if not at_domain and switches.domain and name == www_twin(switches.domain):
        return redirect(f"{request.scheme}://{switches.domain}{request.target}", now)
    if not at_domain and switches.host is not None and name != switches.host:
        if request.scheme == "https" and not is_certified(request.tls_name, name, switches):
            return misdirected(name, now)
        return not_found(request, None, now, title=SITE_NOT_FOUND)
    # Without a host the site answers to any name. A bare address is then a preview, to be shown.
    is_preview = switches.host is None and is_address(name)
    if switches.domain and not at_domain and not is_preview:
        return moved_to_domain(request, path, switches, now)
    if switches.enforce_https and request.scheme == "http":
        return redirect(f"https://{name}{request.target}", now)
    return "/" if at_domain else switches.base


def host_name(host: str) -> str:
    """The name in a Host header: lower case, without port and without a final dot."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def www_twin(domain: str) -> str:
    return domain.removeprefix("www.") if domain.startswith("www.") else f"www.{domain}"


@lru_cache(maxsize=256)
def is_address(name: str) -> bool:
    """Whether `name` is no domain name at all: an IP address, localhost or nothing."""
    if name in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def is_certified(tls_name: str | None, name: str, switches: Switches) -> bool:
    """Whether the certificate shown for `tls_name` is good for `name` too."""
    if tls_name is None or tls_name == name:
        return True
    return tls_name.endswith(".github.io") and name.endswith(".github.io")


def moved_to_domain(request: Request, path: str, switches: Switches, now: float) -> Representation:
    """From `user.github.io/project/page` to `domain/page`; https only where it is enforced."""
    if not f"{path}/".startswith(switches.base):
        return not_found(request, None, now, title=SITE_NOT_FOUND)
    scheme = "https" if switches.enforce_https else "http"
    rest = escaped("/" + path[len(switches.base) :])
    return redirect(f"{scheme}://{switches.domain}{rest}{request.query}", now)


def slash_redirect(request: Request, path: str, switches: Switches, now: float) -> Representation:
    """Add the slash of a folder. Absolute, with scheme, host and port as they were asked for."""
    host = request.headers.get("host", "")
    origin = f"{request.scheme}://{host.lower()}" if host else ""
    location = f"{origin}{escaped(path)}/{request.query}"
    return redirect(location, now, freshness(now) if switches.slash_redirect_cacheable else ())


def redirect(location: str, now: float, more: Fields = ()) -> Representation:
    headers = (*NGINX, ("Content-Type", "text/html"), ("Location", location), *more, *inner(now))
    return Representation(301, headers, nginx_page(301), now, cdn_lifetime_s=UNSTATED_LIFETIME_S)


def found(
    request: Request, file: File, replica: int, switches: Switches, now: float
) -> Representation:
    etag = file.etag_on(replica)
    modified_at = file.modified_on(replica)
    compress = file.is_compressible and accepts_gzip(request.headers)
    headers = (
        *NGINX,
        ("Content-Type", file.content_type.value),
        *(HSTS if switches.enforce_https else ()),
        ("Last-Modified", http_date(modified_at)),
        *CORS,
        *coding(etag, compress),
        *freshness(now),
        *(NO_COHORTS if switches.permissions_policy else ()),
        *inner(now),
        *((("x-github-edge-region", switches.edge_region),) if switches.edge_region else ()),
    )
    body = file.compressed if compress else file.body
    return Representation(200, headers, body, now, etag, modified_at, LIFETIME_S)


def not_found(
    request: Request,
    page: File | None,
    now: float,
    *,
    replica: int = 0,
    title: str = PAGE_NOT_FOUND,
) -> Representation:
    """The site's 404.html, else the default page. A 404 has no lifetime and no Last-Modified."""
    wants_gzip = accepts_gzip(request.headers)
    if page is None:
        body, etag = default_404(title), DEFAULT_404_ETAG
        compress = wants_gzip
        more: Fields = (("Content-Security-Policy", DEFAULT_404_POLICY),)
    else:
        body, etag, more = page.body, page.etag_on(replica), ()
        compress = wants_gzip and page.is_compressible
    if compress:
        body = page.compressed if page else compressed_default_404(title)
    headers = (*NGINX, ("Content-Type", HTML), *CORS, *coding(etag, compress), *more, *inner(now))
    return Representation(404, headers, body, now, etag, cdn_lifetime_s=UNSTATED_LIFETIME_S)


@lru_cache
def compressed_default_404(title: str) -> bytes:
    return File(default_404(title), UNKNOWN, 0).compressed


def error(status: int, now: float, more: Fields = ()) -> Representation:
    """An error of nginx, with its own page and no lifetime."""
    headers = (*NGINX, ("Content-Type", "text/html"), *more, *inner(now))
    return Representation(status, headers, nginx_page(status), now)


def misdirected(name: str, now: float) -> Representation:
    """The CDN's refusal of a name that the connection's certificate does not cover."""
    body = f"Requested host {name!a} does not match any name of the certificate.\n".encode()
    headers = (*CDN_ERROR, ("Content-Type", "text/plain"))
    return Representation(421, headers, body, now)


def trouble(status: int, retry_after: str | None, now: float) -> Representation:
    """A failure of the host: 429 from the web server, 5xx from the CDN."""
    more: Fields = (("Retry-After", retry_after),) if retry_after is not None else ()
    if status < 500:
        return error(status, now, more)
    headers = (*CDN_ERROR, ("Content-Type", HTML), *more)
    return Representation(status, headers, cdn_page(status), now)


# ---------------------------------------------------------------- the CDN


def deliver(whole: Representation, request: Request, passage: Passage, *, now: float) -> Answer:
    """`whole`, or the part of it that was asked for, with the CDN's headers."""
    part = select(whole, request) if whole.status == 200 else whole
    length: Fields = () if part.status == 304 else (("Content-Length", str(len(part.body))),)
    headers = (*part.headers, *length, *cdn_headers(part, passage, now))
    return Answer(part.status, headers, b"" if request.method == "HEAD" else part.body)


def select(whole: Representation, request: Request) -> Representation:
    """Conditions first, then the range (RFC 9110, section 13.2.2)."""
    headers = request.headers
    assert whole.etag is not None
    assert whole.modified_at is not None
    if fails_precondition(headers, whole.etag, whole.modified_at):
        return error(412, whole.served_at)
    if is_unchanged(headers, whole.etag, whole.modified_at):
        return not_modified(whole)
    if "range" not in headers or not if_range_holds(headers, whole):
        return whole
    size = len(whole.body)
    spans = parse_range(headers["range"], size)
    if spans == "whole":
        return whole
    if spans == "unsatisfiable":
        return error(416, whole.served_at, (("Content-Range", f"bytes */{size}"),))
    return single_range(whole, spans[0]) if len(spans) == 1 else many_ranges(whole, spans)


def not_modified(whole: Representation) -> Representation:
    kept = tuple(pair for pair in whole.headers if pair[0].lower() in IN_304)
    assert whole.etag is not None
    return replace(whole, status=304, headers=(("ETag", whole.etag), *kept), body=b"")


def single_range(whole: Representation, span: Span) -> Representation:
    """One part. Cut from the bytes as stored, so from the compressed ones if those are stored."""
    first, last = span
    headers = (*whole.headers, ("Content-Range", f"bytes {first}-{last}/{len(whole.body)}"))
    return replace(whole, status=206, headers=headers, body=whole.body[first : last + 1])


def many_ranges(whole: Representation, spans: list[Span]) -> Representation:
    """Several parts as multipart/byteranges, with nginx's kind of boundary: 20 digits."""
    digest = hashlib.sha256(f"{whole.etag}{spans}".encode()).digest()
    boundary = f"{int.from_bytes(digest[:8]):020d}"
    content_type = dict(whole.headers)["Content-Type"]
    pieces = []
    for first, last in spans:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: bytes {first}-{last}/{len(whole.body)}\r\n\r\n"
        )
        pieces += [head.encode(), whole.body[first : last + 1]]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    multipart = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    headers = tuple(multipart if pair[0] == "Content-Type" else pair for pair in whole.headers)
    return replace(whole, status=206, headers=headers, body=b"".join(pieces))


def cdn_headers(part: Representation, passage: Passage, now: float) -> Fields:
    return (
        *((("Accept-Ranges", "bytes"),) if part.status != 304 else ()),
        ("Date", http_date(int(now))),
        ("Via", "1.1 varnish"),
        ("Age", str(passage.age_s)),
        ("X-Served-By", "cache-lcl10001-LCL"),
        ("X-Cache", "HIT" if passage.hits else "MISS"),
        ("X-Cache-Hits", str(passage.hits)),
        ("X-Timer", f"S{now:.6f},VS0,VE{0 if passage.hits else 1}"),
        ("Vary", "Accept-Encoding"),
        ("X-Fastly-Request-ID", f"{random.getrandbits(160):040x}"),
    )


# ---------------------------------------------------------------- headers


def accepts_gzip(headers: Headers) -> bool:
    """Whether gzip is named with a quality above 0; `*` does not count for nginx."""
    for element in headers.get("accept-encoding", "").split(","):
        name, _, parameters = element.partition(";")
        if name.strip().lower() == "gzip":
            return quality(parameters) > 0
    return False


def quality(parameters: str) -> float:
    """The `q` of an element, 1 if it has none, 0 if it is not a number."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1


def fails_precondition(headers: Headers, etag: str, modified_at: int) -> bool:
    """If-Unmodified-Since and If-Match, which ask for 412. nginx takes a bad date as too early."""
    since = headers.get("if-unmodified-since")
    if since is not None and (seconds_of(since) or 0) < modified_at:
        return True
    match = headers.get("if-match")
    return match is not None and match.strip() != "*" and etag not in entity_tags(match)


def is_unchanged(headers: Headers, etag: str, modified_at: int) -> bool:
    """If-None-Match by weak comparison, else If-Modified-Since; both ask for 304."""
    match = headers.get("if-none-match")
    if match is not None:
        known = {tag.removeprefix("W/") for tag in entity_tags(match)}
        return match.strip() == "*" or etag in known
    since = headers.get("if-modified-since")
    return since is not None and (seconds_of(since) or 0) >= modified_at


def entity_tags(value: str) -> Iterable[str]:
    """The tags of a list. Ours have no commas inside, so that a split finds every one of them."""
    return (tag.strip() for tag in value.split(","))


def if_range_holds(headers: Headers, whole: Representation) -> bool:
    """Whether If-Range is absent, the very ETag that is sent, or the exact date. Never weak."""
    condition = headers.get("if-range")
    if condition is None:
        return True
    if condition.endswith('"'):
        return condition == whole.etag and dict(whole.headers)["ETag"] == condition
    return seconds_of(condition) == whole.modified_at


def coding(etag: str, compress: bool) -> Fields:
    if not compress:
        return (("ETag", etag),)
    return (("ETag", f"W/{etag}"), ("Content-Encoding", "gzip"))


def freshness(now: float) -> Fields:
    return (
        ("Expires", http_date(int(now) + LIFETIME_S)),
        ("Cache-Control", f"max-age={LIFETIME_S}"),
    )


def inner(now: float) -> Fields:
    """What the machines between web server and CDN add."""
    group = [random.getrandbits(bits) for bits in (16, 24, 24, 24)]
    ident = f"{group[0]:04X}:{group[1]:06X}:{group[2]:06X}:{group[3]:06X}:{int(now):08X}"
    return (("x-proxy-cache", "MISS"), ("X-GitHub-Request-Id", ident))


def escaped(path: str) -> str:
    return quote(path.encode("utf-8", "surrogateescape"), safe="/!$&'()*+,;=:@~")


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


@lru_cache(maxsize=1024)
def seconds_of(date: str) -> int | None:
    """An HTTP date in seconds, None if it is none."""
    parts = parsedate(date)
    try:
        return timegm(parts) if parts else None
    except (ValueError, OverflowError):
        return None
