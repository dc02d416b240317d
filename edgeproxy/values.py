"""How values of a policy are written: texts with facts, secrets, names, durations, sizes, lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from edgeproxy.http import FIELD_VALUE, TOKEN, Exchange


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

Token = Annotated[str, Field(pattern=f"^{TOKEN.pattern}$")]
"""The name of a cookie, or another token (RFC 9110, section 5.6.2)."""

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


def as_size(count: float) -> str:
    """Bytes as a policy writes them: `256MiB`, `1.5GiB`."""
    unit, size = next(
        ((unit, size) for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
         if count >= size),
        ("B", 1),
    )  # fmt: skip
    return f"{count / size:.1f}".removesuffix(".0") + unit


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class _Alone:
    """What editors know of a list whose only member may stand without it."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        several: dict[str, Any] = handler(schema)
        return {"anyOf": [several["items"], several]}


type OneOrMany[T] = Annotated[tuple[T, ...], BeforeValidator(_as_list), _Alone()]
"""One value, or a list of them; read as a tuple."""
