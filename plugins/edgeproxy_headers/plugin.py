"""Set, add, append and remove header fields, of the request to the origin and of the response."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, model_validator

from edgeproxy import api
from edgeproxy.api import (
    Config,
    Exchange,
    FieldName,
    Filter,
    Headers,
    OneOrMany,
    Request,
    Response,
    Template,
)

# Fields that say where a message ends or whom it is for: edgeproxy's own.
_RESERVED = frozenset(
    ("connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding")
)


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"{name!r} frames the message; edgeproxy sets it by itself")
    return name


EditableName = Annotated[FieldName, AfterValidator(_not_reserved)]


class Edits(Config):
    """Changes to a header section, in this order: remove, set, add, append."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    remove: OneOrMany[EditableName] = ()
    """Fields to take away, before anything else."""
    set: dict[EditableName, Template] = {}
    """Fields with exactly this value, which may hold `${facts}`."""
    add: dict[EditableName, OneOrMany[Template]] = {}
    """One more line of a field, or several."""
    append: dict[EditableName, Template] = {}
    """One more member of a field that is a list with commas."""

    @model_validator(mode="after")
    def _says_something(self) -> "Edits":
        if not (self.remove or self.set or self.add or self.append):
            raise ValueError("nothing to change; write at least one of remove, set, add, append")
        return self

    def templates(self) -> Iterable[Template]:
        yield from self.set.values()
        yield from self.append.values()
        for several in self.add.values():
            yield from several

    def facts(self) -> tuple[str, ...]:
        """The facts that the new values are made of."""
        return tuple(sorted({name for template in self.templates() for name in template.facts}))

    def apply(
        self, exchange: Exchange, headers: Headers, set_field: Callable[[str, Template], None]
    ) -> None:
        if self.remove:
            headers.remove(*self.remove)
        for name, value in self.set.items():
            set_field(name, value)
        for name, several in self.add.items():
            for value in several:
                headers.add(name, value.render(exchange))
        for name, value in self.append.items():
            headers.append(name, value.render(exchange))


class RequestHeaders(Filter, Edits):
    """Edit what the origin is sent. Facts in it become part of the cache key."""

    def cache_key(self, exchange: Exchange) -> Iterable[tuple[str, str]]:
        return [(name, str(exchange.facts.named(name))) for name in self.facts()]

    def before_fetch(self, exchange: Exchange, request: Request) -> None:
        headers = request.headers
        self.apply(exchange, headers, lambda name, value: headers.set(name, value.render(exchange)))


class ResponseHeaders(Filter, Edits):
    """Edit what this client gets, cached or not."""

    def before_send(self, exchange: Exchange, response: Response) -> None:
        self.apply(exchange, response.headers, partial(exchange.set_field, response))
        if self.facts():
            exchange.varies_by.add("*")


class Plugin(api.Plugin):
    repeatable = True
    filters = {"request_headers": RequestHeaders, "response_headers": ResponseHeaders}
