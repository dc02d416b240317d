"""What every cache tier must do: a kit of tests for those who write one.

Subclass `TierContract` in a test module, say how a tier is made, and pytest runs the rest:

```python
class TestMyTier(TierContract):
    @asynccontextmanager
    async def make(self, max_bytes: int) -> AsyncIterator[Tier]:
        yield MyTier(max_bytes)
```

It needs pytest and pytest-asyncio (`asyncio_mode = "auto"`), which edgeproxy itself does not.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from edgeproxy.api import Headers, StoredResponse, Tier


def entry(key: str = "key", body: bytes = b"body", **changes: object) -> StoredResponse:
    """An entry with something in every field."""
    fields: dict[str, object] = {
        "key": key,
        "status": 200,
        "headers": Headers([(b"X-Caf\xe9", b"\xff\xfe"), (b"A", b"1"), (b"a", b"2"), (b"B", b"")]),
        "body": body,
        "stored_at_s": 1_700_000_000.25,
        "requested_at_s": 1_700_000_000.125,
        "fresh_for_s": 600.0,
        "age_s": 1.5,
        "vary": (("accept-encoding", "gzip"), ("x", None), ("y", "")),
        "tags": ("page", "news"),
        "url": "www.example.org/page",
        "validators": (("If-None-Match", '"x"'),),
        "gone_at_s": 1_700_000_001.5,
        "encoded": (("br", b"shorter"), ("zstd", b"")),
    }
    return StoredResponse(**{**fields, **changes})  # type: ignore[arg-type]


class TierContract:
    """The tests. `make` gives a tier of `max_bytes`, ready for use, and closes it afterwards."""

    @abstractmethod
    def make(self, max_bytes: int) -> AbstractAsyncContextManager[Tier]: ...

    @asynccontextmanager
    async def tier(self, max_bytes: int = 2**24) -> AsyncIterator[Tier]:
        async with self.make(max_bytes) as tier:
            yield tier

    async def test_what_is_put_is_found(self) -> None:
        async with self.tier() as tier:
            kept = entry()
            await tier.put("id", kept)
            assert await tier.load("id") == kept
            assert tier.get("id") in (kept, None)

    async def test_what_was_not_put_is_not_found(self) -> None:
        async with self.tier() as tier:
            assert tier.get("id") is None
            assert await tier.load("id") is None

    @pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 1_000_000])
    async def test_bodies_of_any_size_come_back(self, size: int) -> None:
        body = (bytes(range(256)) * (size // 256 + 1))[:size]
        async with self.tier() as tier:
            kept = entry(body=body)
            await tier.put("id", kept)
            found = await tier.load("id")
            assert found is not None
            assert len(found.body) == size
            assert await found.read() == kept

    async def test_any_text_is_a_name(self) -> None:
        names = ["", "a", "a\n", "a\nb", "a\0", "../../etc/passwd", "é", "\ud800", "x" * 100_000]
        async with self.tier() as tier:
            for name in names:
                await tier.put(name, entry(key=name))
            for name in names:
                found = await tier.load(name)
                assert found is not None
                assert found.key == name

    async def test_the_last_put_wins(self) -> None:
        async with self.tier() as tier:
            for body in (b"one", b"x" * 500_000, b"y" * 500_000, b"two"):
                await tier.put("id", entry(body=body))
                found = await tier.load("id")
                assert found is not None
                assert (await found.read()).body == body
            assert tier.stats()["objects"] == 1
            assert tier.stats()["bytes"] < 10_000

    @pytest.mark.parametrize("size", [10, 500_000])
    async def test_what_is_removed_is_gone(self, size: int) -> None:
        async with self.tier() as tier:
            await tier.put("id", entry(body=b"x" * size))
            await tier.remove("id")
            await tier.remove("never there")
            assert await tier.load("id") is None
            stats = tier.stats()
            assert (stats["objects"], stats["bytes"], stats["max_bytes"]) == (0, 0, 2**24)

    async def test_the_limit_holds_and_the_least_used_go_first(self) -> None:
        async with self.tier(1_000_000) as tier:
            for number in range(100):
                await tier.put(f"id-{number}", entry(body=b"x" * 50_000))
                await asyncio.sleep(0.002)  # uses are told apart by the millisecond
                assert await tier.load("id-0") is not None
                assert tier.stats()["bytes"] <= 1_000_000
            assert await tier.load("id-99") is not None
            assert await tier.load("id-1") is None
            assert tier.stats()["objects"] >= 10

    async def test_what_does_not_fit_is_not_kept_and_pushes_nothing_out(self) -> None:
        async with self.tier(1_000_000) as tier:
            await tier.put("small", entry())
            await tier.put("large", entry(body=b"x" * 900_000))
            assert await tier.load("large") is None
            assert await tier.load("small") is not None

    async def test_what_does_not_fit_still_ends_what_it_replaces(self) -> None:
        async with self.tier(1_000_000) as tier:
            await tier.put("id", entry())
            await tier.put("id", entry(body=b"x" * 900_000))
            assert await tier.load("id") is None

    async def test_many_at_once_do_not_mix(self) -> None:
        async with self.tier() as tier:

            async def one(number: int) -> None:
                body = str(number).encode() * 1000
                for _ in range(5):
                    await tier.put(f"id-{number}", entry(body=body))
                    found = await tier.load(f"id-{number}")
                    assert found is not None
                    assert found.body == body

            await asyncio.gather(*(one(number) for number in range(30)))
            assert tier.stats()["objects"] == 30

    async def test_a_record_of_variants_is_an_entry_like_any_other(self) -> None:
        record = entry(status=0, headers=Headers(), body=b"[]", vary=(("accept-encoding", None),))
        async with self.tier() as tier:
            await tier.put("key", record)
            assert await tier.load("key") == record
