"""What comes in and what goes out: plain data."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

type Fields = tuple[tuple[str, str], ...]


class Headers(Mapping[str, str]):
    """The header fields of a request, found by name in any case; `pairs` is what was received."""

    __slots__ = ("_folded", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs: Fields = tuple(pairs)
        self._folded: dict[str, str] = {}
        for name, value in self.pairs:
            key = name.lower()
            self._folded[key] = f"{self._folded[key]}, {value}" if key in self._folded else value

    def __getitem__(self, name: str) -> str:
        return self._folded[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._folded)

    def __len__(self) -> int:
        return len(self._folded)

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"


@dataclass(frozen=True, slots=True)
class Request:
    """A request head. `target` is as sent: `/path?query`, still percent-encoded."""

    method: str
    target: str
    headers: Headers = field(default_factory=Headers)
    scheme: Literal["http", "https"] = "http"
    tls_name: str | None = None  # the server name the client gave in its TLS handshake

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """`?` and the query, or nothing if there is no `?`."""
        _, mark, query = self.target.partition("?")
        return mark + query


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `body` is empty for HEAD, while Content-Length stays in `headers`."""

    status: int
    headers: Fields
    body: bytes = b""
