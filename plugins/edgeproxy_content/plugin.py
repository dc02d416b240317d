"""Match requests by what they hold: method, fields, language, device, type, body, expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from edgeproxy.api import (
    Below,
    Config,
    Constraint,
    Exchange,
    Fact,
    Matcher,
    OneOrMany,
    hookimpl,
)
from edgeproxy.api import Plugin as BasePlugin

from .body import BodyCondition, body_test, body_values
from .device import Device, device_of
from .expression import MAX_LENGTH, check, expression_test, names_in, read_names
from .implication import constraints
from .language import TAG, covers, favourite, language_test, negotiator
from .media import TYPE, media_test
from .text import (
    FieldConditions,
    TextConditions,
    cookie_test,
    header_test,
    query_parameters,
    query_test,
)

LANGUAGE = Fact[str | None]("content.language")
DEVICE = Fact[Device]("content.device", default="desktop")
BOT = Fact[bool]("content.bot", default=False)

Test = Callable[[Exchange], bool]


def _method(value: str) -> str:
    if value != value.upper():
        raise ValueError(f"methods are in upper case; write {value.upper()}")
    return value


def _media_type(value: str) -> str:
    if not TYPE.fullmatch(value.lower()):
        raise ValueError(f"{value!r} is not a media type; write for example application/json")
    return value.lower()


MethodName = Annotated[str, Field(pattern=r"^[A-Za-z-]{1,32}$"), AfterValidator(_method)]
Tag = Annotated[str, Field(pattern=f"^{TAG}$", max_length=64)]


class Content(Config):
    """What the site has to offer."""

    languages: OneOrMany[Tag] = ()
    """The languages that the site exists in; what browsers prefer is weighed against these."""
    default_language: Tag | None = None
    """For clients that like none of them; the first one if absent."""

    @model_validator(mode="after")
    def _languages_agree(self) -> Self:
        lower = [language.lower() for language in self.languages]
        if len(set(lower)) != len(lower):
            raise ValueError("a language stands twice in languages; remove one")
        if self.default_language is not None and self.default_language not in self.languages:
            known = ", ".join(self.languages) or "none"
            raise ValueError(
                f"default_language {self.default_language!r} is not one of languages: {known}"
            )
        return self


class Method(Matcher[Annotated[OneOrMany[MethodName], Field(min_length=1)]]):
    """The method, in upper case. HEAD is a method of its own."""

    def seen(self, exchange: Exchange) -> Any:
        return exchange.request.method

    def compile(self, plugin: Any) -> Test:
        wanted = frozenset(self.root)
        return lambda exchange: exchange.request.method in wanted

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return [Constraint("method", frozenset(self.root))]


class Scheme(Matcher[Literal["http", "https"]]):
    """How the client reached the proxy."""

    def seen(self, exchange: Exchange) -> Any:
        return exchange.request.scheme

    def matches(self, exchange: Exchange) -> bool:
        return exchange.request.scheme == self.root

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return [Constraint("scheme", frozenset([self.root]), frozenset(("http", "https")))]


class Header(Matcher[FieldConditions]):
    """Header fields and their conditions, such as `{accept-language: {prefix: de}}`."""

    @property
    def varies_by(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(sorted(self.root))

    def seen(self, exchange: Exchange) -> Any:
        return {name: exchange.request.headers.joined(name) for name in self.root}

    def compile(self, plugin: Any) -> Test:
        return header_test(self.root)

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return constraints("header", self.root)


class Query(Matcher[TextConditions]):
    """Query parameters and their conditions, such as `{page: "2"}`."""

    def seen(self, exchange: Exchange) -> Any:
        parameters = query_parameters(exchange.request.query)
        return {name: parameters.get(name) for name in self.root}

    def compile(self, plugin: Any) -> Test:
        return query_test(self.root)

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return constraints("query", self.root, several=True)


class Cookie(Matcher[TextConditions]):
    """Cookies and their conditions, such as `{region: eu}`."""

    varies_by = ("cookie",)

    def seen(self, exchange: Exchange) -> Any:
        cookies = exchange.request.cookies()
        return {name: cookies.get(name) for name in self.root}

    def compile(self, plugin: Any) -> Test:
        return cookie_test(self.root)

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return constraints("cookie", self.root)


class Language(Matcher[Annotated[OneOrMany[Tag], Field(min_length=1)]]):
    """The language that the client likes best, such as `de`."""

    varies_by = ("accept-language",)

    def seen(self, exchange: Exchange) -> Any:
        return exchange.facts[LANGUAGE]

    def compile(self, plugin: Plugin) -> Test:
        offered = plugin.config.languages
        for wanted in self.root if offered else ():
            if not any(covers(wanted.lower(), each.lower()) for each in offered):
                raise ValueError(f"{wanted!r} is not in content.languages: {', '.join(offered)}")
        test = language_test(self.root)
        return lambda exchange: test(exchange.facts[LANGUAGE])

    def constraints(self, plugin: Plugin) -> Sequence[Constraint]:
        offered = frozenset(plugin.config.languages)
        if not offered:  # whatever clients like
            return [Below(LANGUAGE.name, frozenset(wanted.lower() for wanted in self.root))]
        return [
            Constraint(LANGUAGE.name, frozenset(filter(language_test(self.root), offered)), offered)
        ]


class DeviceClass(Matcher[Annotated[OneOrMany[Device], Field(min_length=1)]]):
    """What kind of device the client says it is."""

    varies_by = ("user-agent", "sec-ch-ua-mobile")

    def seen(self, exchange: Exchange) -> Any:
        return exchange.facts[DEVICE]

    def compile(self, plugin: Any) -> Test:
        wanted: frozenset[str] = frozenset(self.root)
        return lambda exchange: exchange.facts[DEVICE] in wanted

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return [Constraint(DEVICE.name, frozenset(self.root), frozenset(get_args(Device)))]


MediaTypeName = Annotated[str, AfterValidator(_media_type)]


class MediaType(Matcher[Annotated[OneOrMany[MediaTypeName], Field(min_length=1)]]):
    """The media type that the client asks for, such as `application/json`."""

    varies_by = ("accept",)

    def seen(self, exchange: Exchange) -> Any:
        return {"accept": exchange.request.headers.joined("accept")}

    def compile(self, plugin: Any) -> Test:
        test = media_test(self.root)
        return lambda exchange: test(exchange.request.headers.joined("accept"))

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        return [Constraint("media type", frozenset(self.root), several=True)]


class Body(Matcher[BodyCondition]):
    """What the request's body says: `{form: {field: value}}` or `{json: {/pointer: value}}`."""

    @property
    def max_body_bytes(self) -> int:  # type: ignore[override]
        return self.root.max_size

    def seen(self, exchange: Exchange) -> Any:
        return body_values(self.root, exchange)

    def compile(self, plugin: Any) -> Test:
        return body_test(self.root)


class Expression(Matcher[Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)]]):
    """A condition in CEL, such as `'path.startsWith("/a/") && size(query) > 2'`."""

    @field_validator("root")
    @classmethod
    def _checked(cls, value: str, info: ValidationInfo) -> str:
        check(value, info.context.get("facts") if isinstance(info.context, dict) else None)
        return value

    @property
    def varies_by(self) -> tuple[str, ...]:  # type: ignore[override]
        return names_in(self.root).varies_by

    def seen(self, exchange: Exchange) -> Any:
        return read_names(self.root, exchange)

    def compile(self, plugin: Any) -> Test:
        return expression_test(self.root)


class Plugin(BasePlugin):
    """Everything above, and the facts `content.language`, `content.device` and `content.bot`."""

    repeatable = True
    Config = Content
    matchers: ClassVar[Mapping[str, type[Matcher[Any]]]] = {
        "method": Method, "scheme": Scheme, "header": Header, "query": Query, "cookie": Cookie,
        "language": Language, "device": DeviceClass, "media_type": MediaType, "body": Body,
        "expression": Expression,
    }  # fmt: skip

    def __init__(self, config: Content) -> None:
        self.config = config
        languages = config.languages
        self.negotiate = (
            negotiator(languages, config.default_language or languages[0])
            if languages
            else favourite
        )

    def facts(self) -> tuple[Fact[Any], ...]:
        return LANGUAGE, DEVICE, BOT

    def implied(self, name: str, value: Any) -> Mapping[str, Any]:
        if name == DEVICE.name:
            return {BOT.name: value == "bot"}
        return {DEVICE.name: "bot"} if name == BOT.name and value else {}

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        exchange.facts.defer(LANGUAGE, partial(self._language, exchange))
        exchange.facts.defer(DEVICE, partial(device_of, exchange.request.headers))
        exchange.facts.defer(BOT, lambda: exchange.facts[DEVICE] == "bot")

    def _language(self, exchange: Exchange) -> str | None:
        return self.negotiate(exchange.request.headers.joined("accept-language"))
