"""The four failures of edgeproxy, named for who must act."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Place:
    """A span in a policy file. Lines and columns count from 1; `width` is in characters."""

    file: str
    line: int
    column: int
    width: int = 1
    text: str = ""  # the whole source line, for the caret

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def without(self, secrets: Iterable["Place"]) -> "Place":
        """The same with stars for each of `secrets` in its line, which may end up in a log."""
        text = self.text
        for secret in secrets if text else ():
            if (secret.file, secret.line) == (self.file, self.line):
                start, end = secret.column - 1, secret.column - 1 + secret.width
                text = text[:start] + "*" * (end - start) + text[end:]
        return replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a policy: what, where, how to fix, and a code that never changes."""

    code: str
    message: str
    place: Place | None = None

    def __str__(self) -> str:
        head = (
            f"{self.place}: {self.message} [{self.code}]"
            if self.place
            else f"{self.message} [{self.code}]"
        )
        if not self.place or not self.place.text:
            return head
        number = str(self.place.line)
        caret = " " * (self.place.column - 1) + "^" + "~" * (self.place.width - 1)
        return f"{head}\n{number} | {self.place.text}\n{' ' * len(number)} | {caret}"

    def as_json(self) -> dict[str, object]:
        place = self.place
        where: dict[str, object] = {}
        if place is not None:
            where = {"file": place.file, "line": place.line,
                     "column": place.column, "width": place.width}  # fmt: skip
        return {"code": self.code, **where, "reason": self.message}


class PolicyError(Exception):
    """The operator must act: the policy has faults. All of them, in file order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class PluginError(Exception):
    """The plugin's author must act: a hook raised, took too long or returned nonsense."""

    def __init__(self, plugin: str, hook: str, reason: str) -> None:
        self.plugin, self.hook, self.reason = plugin, hook, reason
        super().__init__(f"plugin {plugin!r} failed in {hook}: {reason}")


class UpstreamError(Exception):
    """The origin must act: no usable answer came from it.

    `status` is what a client gets when nothing better is at hand: 502, or 504 for a deadline.
    `error` is a token of RFC 9209, section 2.3, such as `connection_refused`.
    """

    def __init__(self, origin: str, error: str, detail: str, *, status: int = 502) -> None:
        self.origin, self.error, self.detail, self.status = origin, error, detail, status
        super().__init__(f"origin {origin!r}: {detail} ({error})")

    def copy(self) -> "UpstreamError":
        """The same for another client: one that is raised twice would keep both tracebacks."""
        return type(self)(self.origin, self.error, self.detail, status=self.status)


@dataclass(slots=True)
class ClientError(Exception):
    """The client must act: its message is refused. `reason` is safe to send to it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"
