"""Checks of the origins: that they can be found and answer well, and of the clock beside theirs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from edgeproxy.doctor.verdict import Judged, check, fault, ok, warning
from edgeproxy.doctor.view import Asked, View

SLOW_S = 2.0
WRONG_BY, VERY_WRONG_BY = timedelta(seconds=10), timedelta(minutes=5)


@check("dns", "an origin whose name leads nowhere cannot be asked")
def dns(view: View) -> Iterator[Judged]:
    for asked in view.origins:
        of = _of(asked)
        if not asked.addresses:
            mend = "look for a slip in its url; then ask `getent hosts` and the resolver"
            yield fault("no address is found for its host", mend, of=of)
        elif asked.is_here and _is_listened_on(asked.origin.port, view):
            mend = "let its url name where the site really is"
            yield fault("it leads back to this edgeproxy, which would ask itself", mend, of=of)
        else:
            yield ok(", ".join(asked.addresses), of=of)


def _is_listened_on(port: int, view: View) -> bool:
    return any(each.address.endswith(f":{port}") for each in view.ports if each.use != "admin")


@check("origin", "what is not stored comes from there; else visitors get stale copies, or 502")
def answers(view: View) -> Iterator[Judged]:
    for asked in view.origins:
        if not asked.addresses:
            continue  # told already
        of = _of(asked)
        if asked.trouble:
            mend = "mend it there, or its url in the policy: visitors would get the same"
            yield fault(asked.trouble, mend, of=of)
        elif asked.took_s > SLOW_S:
            mend = "let the cache keep answers for longer, or stand nearer to it"
            yield warning(f"it took {asked.took_s:.1f} s to answer {asked.status}", mend, of=of)
        else:
            yield ok(f"it answers {asked.status} in {asked.took_s * 1000:.0f} ms", of=of)


@check("pages", "GitHub Pages has settings of its own that decide what visitors get")
def pages(view: View) -> Iterator[Judged]:
    for asked in view.origins:
        if not asked.is_pages or asked.trouble:
            continue
        of = _of(asked)
        if not asked.origin.static:
            mend = "write `kind: pages`, so that nothing personal is sent and methods are answered"
            yield warning("this is GitHub Pages, treated as an app", mend, of=of)
        elif asked.origin.scheme == "http":
            mend = "write its url with https://"
            yield warning("this is GitHub Pages, asked without TLS: it can be altered", mend, of=of)
        elif asked.plain_status is not None and asked.plain_status < 300:
            yield warning(
                "this is GitHub Pages, and shows the site without TLS, too",
                "switch on `Enforce HTTPS` in the Pages settings of the repository",
                of=of,
            )
        else:
            yield ok("this is GitHub Pages, and no setting of it stands in the way", of=of)


@check("clock", "a wrong clock takes fresh copies for old and good certificates for bad")
def clock(view: View) -> Iterator[Judged]:
    for asked in view.origins:
        theirs = _date(asked)
        if theirs is None or asked.at is None:
            continue
        off = asked.at - theirs
        by = "ahead of" if off > timedelta() else "behind"
        says = f"the clock is {abs(off).total_seconds():.0f} s {by} that of the origin"
        mend = "let the machine keep its time by NTP: timedatectl set-ntp true"
        if abs(off) > VERY_WRONG_BY:
            yield fault(says, mend, of=_of(asked))
        elif abs(off) > WRONG_BY:
            yield warning(says, mend, of=_of(asked))
        else:
            yield ok("the clock agrees with that of the origin", of=_of(asked))


def _date(asked: Asked) -> datetime | None:
    try:
        found = parsedate_to_datetime(asked.headers.get("date") or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _of(asked: Asked) -> str:
    return f"{asked.origin.name} ({asked.origin.host})"
