"""Checks of where clients come in: ports, certificates, who is believed, who may administrate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address

from edgeproxy.addresses import Network
from edgeproxy.doctor.verdict import Judged, check, fault, ok, warning
from edgeproxy.doctor.view import AcmeName, Port, View
from edgeproxy.policy.certificates import Certificate

ENDS_SOON = timedelta(days=21)  # who renews at two thirds of 90 days has failed for nine by then
WIDEST_PREFIX = {4: 10, 6: 24}  # of what one operator's proxies have; Cloudflare's is a /12
LONG_TOKEN, MANY_CHARACTERS = 32, 10


@check("port", "nobody gets in by a port that edgeproxy cannot listen on")
def ports(view: View) -> Iterator[Judged]:
    for port in view.ports:
        yield _judged(port)


def _judged(port: Port) -> Judged:
    of = f"{port.address} ({port.use})"
    if port.is_ours:
        return ok(f"{port.holder} serves there now", of=of)
    if port.is_taken:
        by = f"by {port.holder}" if port.holder else "by another program"
        mend = f"stop that, or choose another address{_option(port)}"
        return fault(f"it is in use {by}", mend, of=of)
    if port.is_denied:
        return fault(
            "ports below 1024 are kept for who has a right to them",
            "let systemd open it (the unit in the documentation does), or grant the right: "
            "setcap cap_net_bind_service=+ep on that Python, or AmbientCapabilities in a unit",
            of=of,
        )
    if port.trouble:
        mend = f"choose an address that this machine has{_option(port)}"
        return fault(f"it cannot be had: {port.trouble}", mend, of=of)
    return ok("it is free", of=of)


def _option(port: Port) -> str:
    return f" with {_OPTIONS.get(port.use, 'admin.listen')}"


_OPTIONS = {"HTTP": "--listen", "HTTPS": "--listen-tls", "HTTP/3": "--listen-tls"}


@check("certificate", "browsers turn away from a site whose certificate has ended")
def certificates(view: View) -> Iterator[Judged]:
    for each in _files(view):
        of = ", ".join(each.names) or "(no name)"
        if not each.names:
            mend = "have one made with the names of the site as subject alternative names"
            yield fault("it names no site, and no browser takes it", mend, of=of)
        else:
            yield _lasting(each.not_after, view.now, of)
    for asked in view.acme_names:
        if asked.not_after is None:
            yield ok("there is none yet; it is asked for once edgeproxy serves", of=asked.name)
        else:
            yield _lasting(asked.not_after, view.now, asked.name)


def _lasting(not_after: datetime, now: datetime, of: str) -> Judged:
    left = not_after - now
    says = f"it ends on {not_after:%Y-%m-%d}, in {left.days} days"
    if left <= timedelta():
        return fault(f"it ended on {not_after:%Y-%m-%d}", _RENEW, of=of)
    return warning(says, _RENEW, of=of) if left < ENDS_SOON else ok(says, of=of)


_RENEW = "renew it, look why that did not happen by itself, and reload"


def _files(view: View) -> tuple[Certificate, ...]:
    """The certificates that somebody else keeps."""
    names = view.policy.core.server_names() if view.policy is not None else None
    return names.certificates if names is not None else ()


@check("name", "who asks for a name that no certificate has is shown a warning by the browser")
def names(view: View) -> Iterator[Judged]:
    found = {name for each in _files(view) for name in each.names}
    found |= {asked.name for asked in view.acme_names}
    if not found or view.policy is None:
        return
    hosts = {
        host
        for route in view.policy.routes
        for match in route.matches
        for host in match.core.host or ()
    }
    missing = [host for host in sorted(hosts) if not _covers(found, host)]
    for host in missing:
        mend = "add it to a certificate, unless it is served over HTTP alone"
        yield warning("the policy serves it, and no certificate has it", mend, of=host)
    if hosts and not missing:
        yield ok(f"certificates have every host of the policy: {', '.join(sorted(hosts))}")


def _covers(names: set[str], host: str) -> bool:
    return host in names or f"*.{host.partition('.')[2]}" in names


@check("acme", "an authority gives a certificate to who can be reached by the name, and no other")
def acme(view: View) -> Iterator[Judged]:
    tls = view.policy.core.tls if view.policy is not None else None
    if tls is None or tls.acme is None:
        return
    if tls.acme.directory == "staging":
        yield warning("its certificates are of staging, which no browser trusts",
                      "once that works, write `directory: production`, and reload")  # fmt: skip
    port = "80" if tls.acme.challenge == "http-01" else "443"
    opened = [one.address for one in view.ports if one.use != "admin" and ":" in one.address]
    if opened and not any(address.endswith(f":{port}") for address in opened):
        yield warning(
            f"{tls.acme.challenge} comes to port {port}, where edgeproxy is not to listen",
            f"listen there, unless something hands port {port} on",
        )
    for asked in view.acme_names:
        if asked.addresses is not None:
            yield _reachable(asked)


def _reachable(asked: AcmeName) -> Judged:
    if not asked.addresses:
        return fault("no address is found for it", "let DNS lead it here", of=asked.name)
    listed = ", ".join(asked.addresses)
    if asked.is_here:
        return ok(f"it leads here: {listed}", of=asked.name)
    mend = "let DNS lead it here, unless something hands its ports on"
    return warning(f"it leads to {listed}, which is not this machine's", mend, of=asked.name)


@check("key", "who has the key of a certificate can pass for the site")
def keys(view: View) -> Iterator[Judged]:
    for key in view.key_files:
        if key.others_read:
            yield warning("every user of this machine can read it", f"chmod o-r {key.path}",
                          of=key.path)  # fmt: skip
        else:
            yield ok("others cannot read it", of=key.path)


@check("trusted_proxies", "who is trusted says whose request it is, and so decides its country")
def trusted_proxies(view: View) -> Iterator[Judged]:
    if view.policy is None:
        return
    trusted = view.policy.core.trusted_proxies
    wide = [
        network
        for network in trusted
        if network.prefixlen < WIDEST_PREFIX[network.version] and not network.is_private
    ]
    for network in wide:
        yield _too_wide(network)
    if not trusted and _is_behind_another(view) and _asks_for_addresses(view):
        yield warning(
            "it listens on this machine alone and trusts nobody, so all visitors will seem to come "
            "from 127.0.0.1",
            "if another proxy hands requests on, write trusted_proxies: [127.0.0.1/32, ::1/128]",
        )
    elif trusted and not wide:
        yield ok(f"believed are {', '.join(map(str, trusted))}")
    elif not trusted:
        yield ok("nobody is believed; each client has the address that it connects from")


def _too_wide(network: Network) -> Judged:
    mend = "name the networks of the proxies alone"
    if network.prefixlen == 0:
        return fault("everybody is believed, whatever they say", mend, of=str(network))
    return warning("that is a large part of the internet", mend, of=str(network))


def _is_behind_another(view: View) -> bool:
    public = [port.address for port in view.ports if port.use != "admin"]
    hosts = [address.rpartition(":")[0] for address in public]
    return bool(hosts) and all(host == "unix" or _is_loopback(host.strip("[]")) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _asks_for_addresses(view: View) -> bool:
    """Whether the policy decides by something that no field of a request tells."""
    routes = view.policy.routes if view.policy is not None else ()
    clauses = (clause for route in routes for match in route.matches for clause in match.clauses)
    return any("*" in clause.matcher.varies_by for clause in clauses)


@check("admin", "who guesses the token can replace the policy and empty the cache")
def admin_token(view: View) -> Iterator[Judged]:
    admin = view.policy.core.admin if view.policy is not None else None
    if admin is None:
        return
    token = admin.token.value
    if len(token) < LONG_TOKEN or len(set(token)) < MANY_CHARACTERS:
        mend = f"make a new one for {admin.token.reference}: openssl rand -hex 32"
        yield warning("the token is short, or of few different characters", mend)
    else:
        yield ok(f"the token has {len(token)} characters")
    if admin.allow_remote:
        yield warning(
            f"other machines can reach {admin.listen}, and what is said there is not encrypted",
            "keep it behind a firewall or TLS, or listen on 127.0.0.1 and come by SSH",
        )
