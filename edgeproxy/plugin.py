"""What a plugin is made of: configuration models, matchers and filters."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError, core_schema

from edgeproxy.http import FIELD_VALUE, TOKEN, Exchange, Fact

_DONE = {"edgeproxy": "strict"}


def _strict(schema: Any) -> Any:
    """`schema` without pydantic's kindness to scalars: `yes` as true, `"5"` or `true` as 5.

    Keys of blocks stay as pydantic reads them, since in a policy every key is text.
    """
    if isinstance(schema, list | tuple):
        for member in schema:
            _strict(member)
    elif isinstance(schema, dict):
        if schema.get("type") in ("bool", "int", "float", "str"):
            schema.setdefault("strict", True)
        elif schema.get("type") == "literal":
            return _strict_literal(schema)
        for key, value in schema.items():
            if key not in ("keys_schema", "serialization", "metadata", "default", "expected"):
                _strict(value)
    return schema


def _strict_literal(schema: dict[str, Any]) -> Any:
    """To Python `True` is 1; to a policy it is not."""
    expected = schema["expected"]
    if schema.get("metadata") == _DONE or all(isinstance(value, str) for value in expected):
        return schema

    def check(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in expected):
            names = ", ".join(str(choice) for choice in expected)
            raise PydanticKnownError("literal_error", {"expected": names})
        return value

    inner = core_schema.literal_schema(expected, metadata=_DONE)
    schema.clear()
    schema.update(core_schema.no_info_before_validator_function(check, inner))
    return schema


class Config(BaseModel):
    """A block of a policy. Unknown keys are faults, values are frozen, defaults are checked.

    Scalars are taken as they are written: `yes` is no boolean, `"5"` no number and `404` no text.
    The text below a field is what editors show for its key. `plain_keys` are the keys that a value
    without keys may stand for: with `("name",)`, `hero` is short for `{name: hero}`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )
    plain_keys: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def long_form(cls, text: str) -> Any:
        """The block that a plain `text` is short for. Override to choose among `plain_keys`."""
        return {cls.plain_keys[0]: text} if cls.plain_keys else text

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        return cls.long_form(value) if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _strict(handler(source))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        block: dict[str, Any] = handler.resolve_ref_schema(handler(schema))
        if not cls.plain_keys:
            return block
        plain: list[dict[str, Any]] = []
        for key in cls.plain_keys:
            field = block["properties"][key]
            members = field.get("anyOf", [{**field, "description": ""}])
            plain += [member for member in members if member != {"type": "null"}]
        return {"anyOf": [*plain, {**block}]}


class Matcher[T](RootModel[T]):
    """One key of a route's `matches`. Subclass it with the type of its value.

    ```python
    class Country(Matcher[str]):
        def matches(self, exchange: Exchange) -> bool:
            return exchange.facts[COUNTRY] == self.root
    ```

    `varies_by` names the request fields that the outcome depends on, so that caches behind the
    proxy keep answers apart; `*` where no field tells, such as the client's address.
    `max_body_bytes` above 0 asks for that much of the request body in `exchange.request.body.data`.
    """

    model_config = ConfigDict(frozen=True)
    varies_by: ClassVar[tuple[str, ...]] = ()
    max_body_bytes: ClassVar[int] = 0

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _strict(handler(source))

    def matches(self, exchange: Exchange) -> bool:
        """Whether `exchange` matches. Pure: reads the request and facts, changes nothing."""
        raise NotImplementedError(type(self).__name__)

    def seen(self, exchange: Exchange) -> Any:
        """What it looks at in `exchange`, for explanations: a value, or values by name.

        NotImplemented: it does not tell.
        """
        return NotImplemented

    def compile(self, plugin: Any) -> Callable[[Exchange], bool]:
        """What runs per request. Override to prepare something once; ValueError is a fault."""
        return self.matches


class Filter(Config):
    """One entry of a route's `filters`: a plugin's hooks scoped to that route.

    Subclass it with the fields of its block, and write as methods the hooks it acts in, named as
    in `edgeproxy.hooks`: `admit`, `route`, `cache_key`, `before_fetch`, `after_fetch`, `recover`,
    `before_send`, `finish`. `answers` says that it answers or chooses an origin for every request,
    so that its route needs no origin.
    """

    answers: ClassVar[bool] = False

    def bind(self, plugin: Any, policy: PolicyView) -> object:
        """The object whose hooks run. Override to look something up once; ValueError is a fault."""
        return self


class PolicyView(Protocol):
    """What a filter may ask of the policy it stands in."""

    @property
    def origin_names(self) -> frozenset[str]: ...


class Plugin:
    """The base of a plugin. Hooks are methods marked with `hookimpl`; all else has a default.

    `Config` is the model of the plugin's own section, None if it has none; `section` is where it
    stands in a policy (the plugin's name if empty; `cache.x` for a tier); `matchers` and
    `filters` map the policy's keys to models. A plugin is made when a policy needs one of them,
    with the section or with `Config()` if the policy has none. `facts` is known at load: it lists
    what `${...}` may name. `on_error` says what a failing `annotate` does. `needs` names plugins
    that must be there too, because their facts are read. `extra` is the extra of
    its distribution that brings what it needs; an ImportError then says how to install that.
    `repeatable` promises that its hooks do the same for every exchange that is the same to them:
    they read the request, the client's address and facts, and no clock, counter or chance. Where
    all plugins promise it, hits are remembered and cost a tenth. What else they go by, such as a
    database that is replaced while they run, shows in `revision`, within a second.
    """

    Config: ClassVar[type[BaseModel] | None] = None
    section: ClassVar[str] = ""
    matchers: ClassVar[Mapping[str, type[Matcher[Any]]]] = {}
    filters: ClassVar[Mapping[str, type[Filter]]] = {}
    on_error: ClassVar[Literal["open", "closed"]] = "open"
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    repeatable: ClassVar[bool] = False

    def __init__(self, config: Any = None) -> None:
        self.config = config

    def facts(self) -> Iterable[Fact[Any]]:
        """The facts that this plugin, configured as it is, sets on an exchange."""
        return ()

    @property
    def revision(self) -> Hashable:
        """Another value once a `repeatable` plugin may decide in another way than before."""
        return 0

    def implied(self, name: str, value: Any) -> Mapping[str, Any]:
        """What follows for this plugin's facts if the fact `name` is taken to be `value`.

        For rehearsals: whoever is said to be in DE is in Europe. Names and values.
        """
        return {}


class Template:
    """Text with `${fact}` in it, parsed and checked when the policy loads.

    `render` gives the text for one exchange; characters that cannot stand in a header field are
    dropped, so that a fact can never end a line (a fact may hold what a client sent).
    """

    __slots__ = ("facts", "parts", "source")

    _PART = re.compile(r"\$\{([^}]*)\}")

    def __init__(self, source: str, known: Iterable[str] | None = None) -> None:
        self.source = source
        self.parts = self._PART.split(source)  # literal, fact, literal, fact, ...
        self.facts = tuple(self.parts[1::2])
        if known is not None:
            for name in self.facts:
                if name not in known:
                    raise ValueError(
                        f"no plugin in this policy sets the fact {name!r}; "
                        f"known: {', '.join(sorted(known)) or 'none'}"
                    )
        if not FIELD_VALUE.fullmatch("".join(self.parts[::2])):
            raise ValueError("control characters cannot stand in a header field")

    def render(self, exchange: Exchange) -> str:
        if not self.facts:
            return self.source
        named = exchange.facts.named
        parts = list(self.parts)
        for index in range(1, len(parts), 2):
            value = named(parts[index])
            parts[index] = "" if value is None else _unsafe.sub("", str(value))
        return "".join(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        def parse(value: str, info: ValidationInfo) -> Template:
            known = info.context.get("facts") if isinstance(info.context, dict) else None
            return cls(value, known)

        return core_schema.with_info_after_validator_function(
            parse,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda t: t.source),
        )


class Secret:
    """A value that a policy names and never holds: `${env:NAME}`, or `${file:PATH}`.

    It is read when the policy loads; a file without the line break at its end. Only `value` gives
    it: what is printed, logged or dumped is the reference.
    """

    __slots__ = ("reference", "value")

    _REFERENCE = re.compile(r"\$\{(env|file):([^{}]+)\}")
    _MAX_BYTES = 64 * 1024

    def __init__(self, reference: str, env: Mapping[str, str] | None = None) -> None:
        match = self._REFERENCE.fullmatch(reference)
        if match is None:
            raise PydanticCustomError(
                "secret_as_value",
                "a secret is named here, never written; use ${env:NAME} or ${file:PATH}",
            )
        self.reference = reference
        kind, name = match.groups()
        self.value = self._variable(name, env) if kind == "env" else self._file(name)
        if not self.value:
            raise _missing_secret(f"{reference} is empty")

    @staticmethod
    def _variable(name: str, env: Mapping[str, str] | None) -> str:
        value = (os.environ if env is None else env).get(name)
        if value is None:
            raise _missing_secret(f"the environment variable {name!r} is not set")
        return value

    @classmethod
    def _file(cls, name: str) -> str:
        try:
            with Path(name).open("rb") as file:
                data = file.read(cls._MAX_BYTES + 1)
            text = data.decode()
        except OSError as error:
            raise _missing_secret(f"cannot read {name!r}: {error.strerror or error}") from None
        except ValueError:
            raise _missing_secret(f"{name!r} is not text in UTF-8, or not a file name") from None
        if len(data) > cls._MAX_BYTES:
            raise _missing_secret(f"{name!r} is larger than 64 KiB: is it the right file?")
        return text.removesuffix("\n").removesuffix("\r")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return (self.reference, self.value) == (other.reference, other.value)

    def __hash__(self) -> int:
        return hash(self.reference)

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __str__(self) -> str:
        return self.reference

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        def parse(value: Any, info: ValidationInfo) -> Secret:
            if isinstance(value, cls):
                return value
            env = info.context.get("env") if isinstance(info.context, dict) else None
            return cls(value if isinstance(value, str) else "", env)

        return core_schema.with_info_plain_validator_function(
            parse, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\$\{(env|file):[^{}]+\}$"}


def _missing_secret(reason: str) -> PydanticCustomError:
    return PydanticCustomError("missing_secret", "{reason}", {"reason": reason})


def editor_hint(pattern: str, message: str = "") -> WithJsonSchema:
    """What editors know of a text that a validator checks: its form, and what to say of others."""
    hint = {"patternErrorMessage": message} if message else {}
    return WithJsonSchema({"type": "string", "pattern": pattern, **hint})


_unsafe = re.compile(r"[^\t\x20-\x7e\x80-\U0010ffff]")


def _field_name(value: Any) -> Any:
    if isinstance(value, str) and not TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a header field name (RFC 9110, section 5.1)")
    return value.lower() if isinstance(value, str) else value


FieldName = Annotated[
    str, BeforeValidator(_field_name), editor_hint(f"^{TOKEN.pattern}$", "a header field name")
]
"""A header field name, in lower case."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name given by the policy: lower case letters, digits, `-` and `_`."""


def _known_origin(value: str, info: ValidationInfo) -> str:
    known = info.context.get("origins") if isinstance(info.context, dict) else None
    if known is not None and value not in known:
        hint = did_you_mean(value, known)
        names = f"{' ' if hint else '; '}origins: {', '.join(sorted(known))}" if known else ""
        reason = f"no origin is called {value!r}{hint}{names}"
        raise PydanticCustomError("unknown_origin", "{reason}", {"reason": reason})
    return value


OriginName = Annotated[Name, AfterValidator(_known_origin)]
"""The name of one of the policy's origins; another name is a fault when the policy loads."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of `known`; empty if none is near."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_UNITS_BYTES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([A-Za-z]*)", re.ASCII)


def _quantity(value: Any, units: Mapping[str, float], example: str, kind: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PydanticCustomError(
            "quantity", f"a {kind} is a number and a unit, for example {example}"
        )
    if value == 0:
        return 0
    match = _QUANTITY.fullmatch(str(value))
    if match is None or match.group(2) not in units:
        raise PydanticCustomError(
            "quantity",
            f"{str(value)!r} is not a {kind}; write a number and a unit "
            f"({', '.join(units)}), for example {example}",
        )
    return float(match.group(1)) * units[match.group(2)]


def _quantity_hint(units: Mapping[str, float], example: str, kind: str) -> WithJsonSchema:
    """What editors know of a quantity: text with a unit, or a bare 0."""
    wanted = f"a {kind} is a number and a unit ({', '.join(units)}), such as {example}"
    number = r"[0-9]{1,15}(\.[0-9]{1,15})?"
    return WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": f"^{number}({'|'.join(units)})$",
            "patternErrorMessage": wanted,
            "if": {"type": "number"},
            "then": {"const": 0, "errorMessage": wanted},
        }
    )


Duration = Annotated[
    float,
    BeforeValidator(lambda v: _quantity(v, _UNITS_S, "10m", "duration")),
    _quantity_hint(_UNITS_S, "10m", "duration"),
]
"""A time span: written `10m`, read as seconds."""

Size = Annotated[
    int,
    BeforeValidator(lambda v: int(_quantity(v, _UNITS_BYTES, "256MiB", "size"))),
    _quantity_hint(_UNITS_BYTES, "256MiB", "size"),
]
"""An amount of bytes: written `256MiB`, read as bytes."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class _Alone:
    """What editors know of a list whose only member may stand without it."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        several: dict[str, Any] = handler(schema)
        return {"anyOf": [several["items"], several]}


type OneOrMany[T] = Annotated[tuple[T, ...], BeforeValidator(_as_list), _Alone()]
"""One value, or a list of them; read as a tuple."""
