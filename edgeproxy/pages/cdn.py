"""The cache in front of Pages, as far as a client can tell: Age, X-Cache and a stale Expires."""

from collections.abc import Callable
from dataclasses import dataclass

from .answer import Passage, Representation, accepts_gzip, host_name
from .messages import Request

CAPACITY = 10_000  # answers; the one stored longest goes first

type Key = tuple[str, str, str, bool]


@dataclass(slots=True)
class Stored:
    whole: Representation
    confirmed_at: float
    hits: int = 0


class Cdn:
    """One location of the CDN. A publish does not purge it: old pages live out their time."""

    def __init__(self) -> None:
        self._stored: dict[Key, Stored] = {}

    def get(
        self, request: Request, now: float, fetch: Callable[[], Representation]
    ) -> tuple[Representation, Passage]:
        """The stored answer while it is fresh, else a new one from `fetch`.

        A copy found unchanged is kept with all its headers, so that its Expires may lie hours in
        the past while its Age is 0: that is how Pages answers.
        """
        if request.method not in ("GET", "HEAD"):
            return fetch(), Passage()
        host = host_name(request.headers.get("host", ""))
        key = (request.scheme, host, request.target, accepts_gzip(request.headers))
        stored = self._stored.get(key)
        if stored and 0 <= now - stored.confirmed_at < stored.whole.cdn_lifetime_s:
            stored.hits += 1
            return stored.whole, Passage(int(now - stored.confirmed_at), stored.hits)
        whole = fetch()
        if (
            stored
            and whole.status == stored.whole.status == 200
            and whole.etag == stored.whole.etag
        ):
            whole = stored.whole
        self._stored.pop(key, None)
        if whole.cdn_lifetime_s:
            self._stored[key] = Stored(whole, now)
            if len(self._stored) > CAPACITY:
                del self._stored[next(iter(self._stored))]
        return whole, Passage()
