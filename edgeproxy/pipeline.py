"""The journey of a request, from arrival to answer. Read it top to bottom.

It knows no engine: `fetch` is handed in, an awaitable that turns a request into a response. When
nothing on the way has to wait (a hit in memory, a redirect, a refusal) the journey ends without
giving up the event loop once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.purges import public_url
from edgeproxy.caching.rules import key_parts, key_query
from edgeproxy.caching.structured import items
from edgeproxy.errors import ClientError, PluginError, UpstreamError
from edgeproxy.fronting import (
    clean_response,
    keep_apart,
    public_path,
    says_no_site,
    settle_location,
    upstream_request,
)
from edgeproxy.health import Cause
from edgeproxy.http import (
    Body,
    Exchange,
    Fetch,
    Headers,
    Origin,
    Request,
    Response,
    Target,
    normalise_path,
)
from edgeproxy.plan import Hook, Phase, Plan, Route
from edgeproxy.routing import attempts, find
from edgeproxy.trace import Step, Watch

log = logging.getLogger("edgeproxy")

MAX_FAILURES = 20  # in a row, of a hook whose failure does not end a request
PAUSE_S = 30  # for which it is then left out

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
MAX_404_BYTES = 64 * 1024

_CACHED_METHODS = ("GET", "HEAD")


async def handle(exchange: Exchange, plan: Plan, fetch: Fetch) -> Response:
    """The answer to one request. Every failure becomes an answer here; nothing is let through."""
    try:
        response = await journey(exchange, plan, fetch)
    except ClientError as error:
        response = error_response(exchange, error.status, error.reason, *error.headers)
    except UpstreamError as error:
        response = upstream_failed(exchange, error)
    except PluginError as error:
        exchange.error = str(error)
        status = 502 if error.hook in ("after_fetch", "recover") else 500
        response = error_response(exchange, status, "a plugin failed")
    except Exception as error:
        log.exception("request %s failed", exchange.id)
        exchange.error = repr(error)
        response = error_response(exchange, 500, "edgeproxy failed")
    if exchange.error:
        log.warning("request %s: %s", exchange.id, exchange.error)
    exchange.response = response
    return response


async def journey(exchange: Exchange, plan: Plan, fetch: Fetch) -> Response:
    """Annotate, admit, choose a route, let it answer, edit what this client gets.

    A name that the policy does not serve gets none of it (RFC 9110, section 15.5.20).
    """
    if not plan.serves(exchange.request.host):
        raise ClientError(plan.policy.core.unknown_host, "no site of this name is served here")
    await each(plan, plan.phases.annotate, exchange)
    phases = plan.phases
    response = await first(plan, phases.admit, exchange)
    if response is None:
        route, captures = await choose_route(exchange, plan)
        exchange.route, exchange.captures, phases = route.name, captures, route.phases
        response = await first(plan, phases.admit, exchange)
        if response is None:
            response = await answer(exchange, plan, route, fetch)
    try:
        await each(plan, phases.before_send, exchange, response)
    except BaseException:
        await response.body.close()  # nobody will read it
        raise
    return finished(exchange, response)


async def choose_route(exchange: Exchange, plan: Plan) -> tuple[Route, tuple[str, ...]]:
    """The first route of the policy that matches, and what its wildcards stand for."""
    request = exchange.request
    candidates = plan.routes.candidates(request.host, request.path)
    needed = max((candidate.max_body_bytes for candidate in candidates), default=0)
    if needed:
        await request.body.peek(needed)
    if exchange.trace is not None:
        exchange.trace.attempts = attempts(candidates, exchange)
    found = find(candidates, exchange)
    if found is None:
        raise ClientError(404, "no route of the policy matches this request")
    return found.route, found.captures


async def answer(exchange: Exchange, plan: Plan, route: Route, fetch: Fetch) -> Response:
    """What the chosen target gives: from the cache, or from its origin."""
    target = exchange.target = route.target(exchange)
    for hook in route.phases.route:
        chosen: Target | None = await run(plan, hook, Target, exchange)
        if chosen is not None:
            path = normalise_path(chosen.path, encoded_slashes=True)
            target = exchange.target = chosen.with_path(path)
    origin = exchange.origin = plan.origins.get(target.origin)
    if origin is None:
        raise ClientError(404, "the route has no origin")
    method = exchange.request.method
    if origin.static and method not in _CACHED_METHODS:
        return unsupported(method)
    if route.rule is not None:
        query = key_query(target.query, route.rule.query, route.rule.ignore_query)
        target = Target(target.origin, target.path, query)
    request = upstream_request(exchange, target, origin)
    if exchange.request.is_upgrade and route.websocket and not origin.static:
        return await tunnel(request, origin, fetch)
    forward = partial(go_upstream, exchange, plan, route, origin, fetch)
    try:
        if route.cached and method in _CACHED_METHODS and request.body.length == 0:
            cache = plan.cache
            key = exchange.cache_key = await cache_key(exchange, plan, route, origin, request)
            url = exchange.request.host + exchange.request.path
            url = url if target.query is None else f"{url}?{target.query}"
            accepts = (
                exchange.request.headers.joined("accept-encoding") if cache.encodings else None
            )
            answered = await cache.read_through(
                request, key, route.rule, forward, url=url, accept_encoding=accepts
            )
            exchange.cache_verdict, exchange.cache_status = answered.verdict, answered.status
            exchange.cache_tier, exchange.hit = answered.tier, answered.hit
            response = answered.response
            if answered.cause is not None:
                response.headers.append("proxy-status", stood_in(answered.cause, origin))
        else:
            fwd = "bypass" if method in _CACHED_METHODS else "method"
            exchange.cache_status = f"edgeproxy; fwd={fwd}"
            response = await plan.cache.watched(forward, request)
            exchange.cache_status += f"; fwd-status={response.status}"
            if method not in SAFE_METHODS and response.status < 400:
                await heed_change(exchange, plan, target, origin, request, response)
            plan.cache.hide_tags(response.headers)
        settle_location(exchange, response, origin)
    except UpstreamError as error:
        exchange.cache_status = exchange.cache_status or "edgeproxy; fwd=miss"
        recovered = await first(plan, route.phases.recover, exchange, error)
        if recovered is None:
            raise
        exchange.error = str(error)
        return recovered
    return response


async def heed_change(
    exchange: Exchange,
    plan: Plan,
    target: Target,
    origin: Origin,
    request: Request,
    response: Response,
) -> None:
    """Let the cache know what an unsafe request has changed: its target, and what Location and
    Content-Location name on the same site (RFC 9111, section 4.4), and the groups that the answer
    names (RFC 9875, section 3)."""
    host, path = exchange.request.host, exchange.request.path
    urls = [path if target.query is None else f"{path}?{target.query}"]
    base = f"{request.scheme}://{origin.authority}{request.path}"
    for name in ("location", "content-location"):
        for line in response.headers.get_all(name):
            urls += same_site_target(line, base, host, origin)
    groups = items(response.headers, "cache-group-invalidation") or []
    await plan.cache.heed_change(
        [f"{host}{url}" for url in urls], [group for group in groups if type(group) is str]
    )


def same_site_target(location: str, base: str, host: str, origin: Origin) -> list[str]:
    """The public path and query that `location` names; nothing if it is another site's.

    Relative to `base`, the URL that the origin was asked for.
    """
    try:
        parts = urlsplit(urljoin(base, location))
        if parts.hostname == origin.host:
            path = public_path(parts.path or "/", origin)
        elif parts.hostname == host:
            path = parts.path or "/"
        else:
            return []
        return [public_url(path + (f"?{parts.query}" if parts.query else ""))]
    except ValueError:
        return []


async def go_upstream(
    exchange: Exchange, plan: Plan, route: Route, origin: Origin, fetch: Fetch, request: Request
) -> Response:
    """One trip to the origin, with the hooks on either side of it."""
    await each(plan, route.phases.before_fetch, exchange, request)
    if exchange.trace is not None:
        exchange.trace.asked = request
    try:
        response = await fetch(origin, request)
        clean_response(response, origin)
        if response.status == 404 and origin.static:
            await refuse_missing_site(response, origin)
    except UpstreamError as error:
        await each(plan, route.phases.fetch_failed, exchange, error)
        raise
    await each(plan, route.phases.after_fetch, exchange, response)
    if exchange.trace is not None:
        exchange.trace.received = response.copy()
    return response


async def refuse_missing_site(response: Response, origin: Origin) -> None:
    """Take Pages' answer for a name under which no site is published as a failure of the origin.

    It has the status of a page that is gone, and would replace every stored copy in turn.
    """
    page = await response.body.peek(MAX_404_BYTES)
    if page is not None and says_no_site(page, response.headers.get("content-encoding")):
        await response.body.close()
        reason = f"GitHub Pages has no site under the name {origin.host}"
        raise UpstreamError(origin.name, "destination_not_found", reason)


async def tunnel(request: Request, origin: Origin, fetch: Fetch) -> Response:
    """A WebSocket: the request goes as it is, and what comes back is a pipe."""
    request.headers.set("connection", "Upgrade")
    request.headers.set("upgrade", "websocket")
    request.headers.remove("accept-encoding")
    response = await fetch(origin, request)
    if response.tunnel is None:
        clean_response(response, origin)
    return response


async def cache_key(
    exchange: Exchange, plan: Plan, route: Route, origin: Origin, request: Request
) -> str:
    """Everything that a stored answer depends on, spelled so that no two keys can meet.

    One line each: the origin and the target, the public name if the origin is told it, the route
    if its filters change what is fetched, the policy if one beside it would store other answers,
    what the rule and what plugins name. None of them can hold a line break: targets are canonical,
    and other values are escaped by `repr`.
    """
    lines = [f"{origin.name} {request.scheme}://{request.authority}{request.target}"]
    if not origin.static:  # it is told the public name, and may write it into its answer
        lines.append(f"public={exchange.request.scheme}://{exchange.request.authority}")
    if route.edits_fetch:
        lines.append(f"route={route.name}")
    if route.is_apart:
        lines.append(f"policy={plan.version}")
    if route.rule is not None and not route.rule.key.is_empty:
        lines += rule_key(exchange, route.rule)
    for hook in route.phases.cache_key:
        parts = await run(plan, hook, Iterable, exchange)
        try:
            pairs = () if parts is None else tuple(parts)
            lines += sorted(_key_line(*pair) for pair in pairs)
        except Exception as error:
            failed(plan, hook, f"{type(error).__name__}: {error}", error)
        if exchange.trace is not None:
            exchange.trace.steps[-1].key = pairs
    return "\n".join(lines)


def rule_key(exchange: Exchange, rule: CacheRule) -> list[str]:
    """What a rule's `key` names of the request. Other caches are told that answers differ by it."""
    exchange.varies_by.update(rule.key.headers)
    if rule.key.cookies:
        exchange.varies_by.add("cookie")
    return [f"{name}={value}" for name, value in key_parts(rule, exchange.request)]


def _key_line(name: Any, value: Any) -> str:
    if not (isinstance(name, str) and isinstance(value, str)):
        raise TypeError("a part of a key is a pair of texts")
    return f"{name}={value!r}"


def unsupported(method: str) -> Response:
    """A static origin answers GET and HEAD; it need not be asked about anything else."""
    allow = ("allow", "GET, HEAD, OPTIONS")
    if method == "OPTIONS":
        return Response(204, Headers.of(allow))
    return Response.text(405, "this site answers GET and HEAD\n", allow)


def finished(exchange: Exchange, response: Response) -> Response:
    """The last touches, the same for every answer."""
    keep_apart(exchange, response)
    headers = response.headers
    for cookie in exchange.cookies_to_set:
        headers.add("set-cookie", cookie)
    if exchange.cache_status:
        headers.append("cache-status", exchange.cache_status)
    headers.append("via", "1.1 edgeproxy")
    if "date" not in headers:
        headers.add("date", http_date(time.time()))
    return response


def upstream_failed(exchange: Exchange, error: UpstreamError) -> Response:
    """The page for an origin that gave no usable answer, with the cause in Proxy-Status."""
    exchange.error = str(error)
    cause = f'edgeproxy; error={error.error}; next-hop="{error.origin}"'
    return error_response(
        exchange, error.status, "the origin gave no usable answer", ("proxy-status", cause)
    )


def stood_in(cause: Cause, origin: Origin) -> str:
    """What a stored copy stands in for, in the words of RFC 9209."""
    what = f"error={cause.error}" if cause.error else f"received-status={cause.status}"
    return f'edgeproxy; {what}; next-hop="{origin.name}"'


def too_many_requests(exchange: Exchange, wait_s: float) -> Response:
    """What a client gets that asks more often than the policy's `request_rate`."""
    after = ("retry-after", str(math.ceil(wait_s)))
    response = error_response(exchange, 429, "too many requests of one address", after)
    exchange.response = response
    return response


def error_response(
    exchange: Exchange, status: int, reason: str, *headers: tuple[str, str]
) -> Response:
    """A short page that says what happened in general, and the id under which the log has more."""
    response = Response.text(
        status, f"{status}: {reason}\nrequest id {exchange.id}\n", *headers,
        ("cache-control", "no-store"),
    )  # fmt: skip
    return finished(exchange, response)


def http_date(now_s: float) -> str:
    """A moment as an IMF-fixdate (RFC 9110, section 5.6.7)."""
    global _date
    second = int(now_s)
    if _date[0] != second:
        moment = time.gmtime(second)
        day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.tm_wday]
        month = (
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        )[moment.tm_mon - 1]  # fmt: skip
        text = time.strftime(f"{day}, %d {month} %Y %H:%M:%S GMT", moment)
        _date = (second, text)
    return _date[1]


_date = (0, "")


async def each(plan: Plan, hooks: Phase, exchange: Exchange, *arguments: Any) -> None:
    """Run every hook in turn."""
    for hook in hooks:
        await run(plan, hook, type(None), exchange, *arguments)


async def first(plan: Plan, hooks: Phase, exchange: Exchange, *arguments: Any) -> Response | None:
    """Run hooks in turn until one answers."""
    for hook in hooks:
        response: Response | None = await run(plan, hook, Response, exchange, *arguments)
        if response is not None:
            return response
    return None


async def run(
    plan: Plan, hook: Hook, expected: type[Any], exchange: Exchange, *arguments: Any
) -> Any:
    """One hook, waited for if it is async, within the policy's `hook_timeout`.

    Whatever it raises becomes a PluginError, unless it is one of edgeproxy's own failures, which
    a hook may raise on purpose. A failure that does not matter to the client is logged.
    """
    if hook.failures >= MAX_FAILURES and time.monotonic() < hook.paused_until_s:
        return None
    watch = _watch(hook, exchange, arguments) if exchange.trace is not None else None
    try:
        result = hook.call(exchange, *arguments)
        if inspect.isawaitable(result):
            async with asyncio.timeout(plan.limits.hook_timeout) as deadline:
                result = await result
            if deadline.expired():  # and the hook made nothing of being told so
                raise TimeoutError
    except KeyboardInterrupt:
        raise
    except (ClientError, UpstreamError) as error:
        if hook.phase not in ("fetch_failed", "finish"):
            raise
        return failed(plan, hook, str(error), error)
    except BaseException as error:  # SystemExit too: it would end the program for all others
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        return failed(plan, hook, f"{type(error).__name__}: {error}", error)
    if watch is not None:
        watch.end(result)
    if result is not None and not isinstance(result, expected):
        return failed(
            plan, hook, f"returned {type(result).__name__}, not {expected.__name__} or None"
        )
    left = result if expected is Response or not arguments else arguments[-1]
    if isinstance(left, Response) and (reason := unsendable(left)):
        return failed(plan, hook, reason)
    hook.failures = 0
    return result


def _watch(hook: Hook, exchange: Exchange, arguments: Sequence[Any]) -> Watch:
    assert exchange.trace is not None
    step = Step(hook.phase, hook.plugin, hook.filter, hook.place)
    return exchange.trace.begin(step, exchange, arguments)


def is_cancelled() -> bool:
    """Whether this task is to end, or a CancelledError is only something that a plugin raised."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def unsendable(response: Any) -> str:
    """What about `response` keeps it from being sent; empty if nothing does."""
    status = response.status
    if not isinstance(status, int) or not (200 <= status <= 599 or response.tunnel):
        return f"left a response with status {status!r}"
    if not (isinstance(response.headers, Headers) and isinstance(response.body, Body)):
        return "left a response whose headers or body are something else"
    return ""


def failed(plan: Plan, hook: Hook, reason: str, cause: BaseException | None = None) -> None:
    """A hook's failure: ends the request where the phase is closed, is logged where it is open."""
    error = PluginError(hook.plugin, hook.phase, reason)
    plan.plugin_errors[hook.plugin, hook.phase] += 1
    if hook.closed:
        log.error("%s", error, exc_info=cause)
        raise error from cause
    log.error("%s; the request goes on", error, exc_info=cause)
    hook.failures += 1
    if hook.failures >= MAX_FAILURES:
        hook.paused_until_s = time.monotonic() + PAUSE_S
        log.error("%s of plugin %r is left out for %d s", hook.phase, hook.plugin, PAUSE_S)
