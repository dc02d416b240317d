"""What has been fetched, on its way into the tiers; and what is not kept, remembered as such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cachetools import TTLCache

from edgeproxy.caching.background import Background
from edgeproxy.caching.encodings import Encoder, is_encodable
from edgeproxy.caching.errand import Errand
from edgeproxy.caching.flights import Flight, Kept
from edgeproxy.caching.levels import Found, Levels
from edgeproxy.caching.renewal import GONE_STATUSES
from edgeproxy.caching.reuse import left_s
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.caching.upkeep import SLOWEST_FETCH_S
from edgeproxy.http import Headers

HIT_FOR_MISS_S = 120.0
MAX_HIT_FOR_MISS = 4096


class Keeper:
    """Puts answers into `levels`, unless a purge has overtaken them."""

    def __init__(
        self,
        levels: Levels,
        background: Background,
        encodings: tuple[str, ...],
        now: Callable[[], float],
    ) -> None:
        self._levels = levels
        self._purges = levels.purges
        self._background = background
        self._encoder = Encoder(encodings) if encodings else None
        self._now = now
        self._hit_for_miss: TTLCache[str, bool] = TTLCache(
            MAX_HIT_FOR_MISS, HIT_FOR_MISS_S, timer=now
        )

    def is_hit_for_miss(self, id: str) -> bool:
        """Whether the last answer under `id` could not be shared, so that nobody should wait for
        the next one."""
        return id in self._hit_for_miss

    def expect_anything(self) -> None:
        """Forget which answers could not be shared."""
        self._hit_for_miss.clear()

    async def keep(self, errand: Errand, found: Found, outcome: Kept, flight: Flight) -> None:
        """Store what was fetched, in place of what was `found`."""
        entry = outcome.entry
        if flight.is_doomed or self._is_overtaken(entry, errand.url):
            return
        if not outcome.shared:
            await self._levels.forget(found.id)
            return
        if left_s(entry, errand.rule, self._now()) > 0:
            self._hit_for_miss.pop(found.id, None)
        else:
            self._hit_for_miss[found.id] = True
        if self._encoder is not None and entry.encoded is None and not is_encodable(entry):
            entry = replace(entry, encoded=())
        id = await self._levels.put(entry, errand.request.headers, errand.coding)
        if entry.encoded is None:
            self.encode_later(id, entry)

    async def keep_part(self, part: StoredResponse, url: str) -> None:
        """Store a part of a large object, which was fetched to answer for `url`."""
        if not self._is_overtaken(part, url):
            await self._levels.put(part, Headers(), "identity")

    def _is_overtaken(self, entry: StoredResponse, url: str) -> bool:
        """Whether `entry` was purged while it was under way; or was so for so long that the mark
        of a purge may be gone again."""
        took_s = self._now() - entry.requested_at_s
        return took_s > SLOWEST_FETCH_S or self._purges.seen(entry, url) is None

    async def refuse(self, errand: Errand, found: Found, status: int) -> None:
        """Remember that answers like this one are not shared, and drop what they replace."""
        if status in (206, 304) or errand.asked.has_credentials:
            return
        if status < 400 or status in GONE_STATUSES:
            self._hit_for_miss[found.id] = True
            if found.entry is not None:
                await self._levels.forget(found.id)

    def encode_later(self, id: str, entry: StoredResponse) -> None:
        """Make the policy's codings of what has just been stored, or not been encoded yet."""
        encoder = self._encoder
        if encoder is None or entry.is_lazy or not encoder.is_free(id):
            return

        async def work() -> None:
            encoded = await encoder.encode(id, entry) if is_encodable(entry) else ()
            await self._levels.add_encoded(id, entry, encoded)

        encoder.tasks.add(task := self._background.begin(work()))
        task.add_done_callback(encoder.tasks.discard)

    def close(self) -> None:
        """Encode nothing more. What has been fetched is still stored."""
        for task in self._encoder.tasks if self._encoder else ():
            task.cancel()
