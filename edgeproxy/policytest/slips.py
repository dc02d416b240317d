"""Slips of a policy's author: what a part of a policy says, with one value of it changed.

They follow from the types of a model alone, so that the filters and sections of any plugin have
them: an entry left out, another choice, another origin, a number that is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgeproxy.values import OriginName

OUT = "is taken out"


@dataclass(frozen=True, slots=True)
class Slip:
    """`keys` lead to what is changed, `words` say how, `value` is the whole with the change."""

    keys: tuple[str | int, ...]
    words: str
    value: Any


@dataclass(frozen=True, slots=True)
class Slips:
    """Makes them. `origins` may be named for each other; `keep_texts` leaves texts and numbers."""

    origins: Sequence[str] = ()
    keep_texts: bool = False

    def of(self, model: BaseModel) -> Iterator[Slip]:
        """The slips in what the author wrote of `model`; its defaults are not the author's."""
        fields = type(model).model_fields
        written = [name for name in fields if name in model.model_fields_set]
        for name in written:
            field, value = fields[name], getattr(model, name)
            may_empty = len(written) > 1 and field.default in ((), {})
            for slip in self._of_value(value, field, may_empty):
                keys = slip.keys if name == "root" else (field.alias or name, *slip.keys)
                changed = model.model_copy(update={name: slip.value})
                if _makes_sense(changed):
                    yield Slip(keys, slip.words, changed)

    def _of_value(self, value: Any, field: FieldInfo | None, may_empty: bool) -> Iterator[Slip]:
        """`may_empty` tells that the last entry of a collection may be taken out."""
        choices = _choices(field)
        if isinstance(value, BaseModel):
            yield from self.of(value)
        elif isinstance(value, bool):
            yield _other(not value)
        elif isinstance(value, dict):
            yield from self._of_dict(value, may_empty)
        elif isinstance(value, tuple):
            yield from self._of_tuple(value, may_empty)
        elif _is_origin(field):
            yield from map(_other, _next(value, self.origins))
        elif not self.keep_texts and value in choices:
            yield from map(_other, _next(value, choices))
        elif not self.keep_texts:
            yield from map(_other, _near(value))
        if not self.keep_texts and choices and value not in choices:
            yield _other(choices[0])

    def _of_dict(self, value: dict[Any, Any], may_empty: bool) -> Iterator[Slip]:
        if all(type(each) in (int, float) for each in value.values()) and len(value) > 1:
            yield Slip((), "is turned round", turned(value))
        for key, each in value.items():
            for slip in self._of_value(each, None, False) if isinstance(each, BaseModel) else ():
                yield Slip((str(key), *slip.keys), slip.words, {**value, key: slip.value})
            if len(value) > 1 or may_empty:
                rest = {other: value[other] for other in value if other != key}
                yield Slip((str(key),), OUT, rest)

    def _of_tuple(self, value: tuple[Any, ...], may_empty: bool) -> Iterator[Slip]:
        for n, each in enumerate(value):
            before, after = value[:n], value[n + 1 :]
            for slip in self._of_value(each, None, False) if isinstance(each, BaseModel) else ():
                yield Slip((n, *slip.keys), slip.words, (*before, slip.value, *after))
            if len(value) > 1 or may_empty:
                yield Slip((n,), f"loses {_shown(each)}", before + after)


def _makes_sense(model: BaseModel) -> bool:
    """Whether the model's own validators take it: a copy with another value has not asked them."""
    for validator in type(model).__pydantic_decorators__.model_validators.values():
        if validator.info.mode == "after":
            try:
                validator.func(model)
            except ValueError:
                return False
    return True


def _other(value: Any) -> Slip:
    return Slip((), f"is {_shown(value)}", value)


def _near(value: Any) -> Iterator[Any]:
    """A value of the same kind that means something else; none for what is not understood."""
    if isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield value * 2 or 1.0
    elif isinstance(value, str) and value:
        yield f"{value}~" if value.startswith(("/", "http")) else ""


def _next(value: Any, choices: Sequence[Any]) -> list[Any]:
    """The choice after `value`, the first after the last; none if there is no other."""
    if value not in choices or len(choices) < 2:
        return []
    return [choices[(list(choices).index(value) + 1) % len(choices)]]


def turned(value: dict[Any, Any]) -> dict[Any, Any]:
    """The numbers handed on by one; if all are alike, the first three times as large."""
    numbers = list(value.values())
    turned = [numbers[-1], *numbers[:-1]]
    if turned == numbers:
        turned[0] *= 3
    return dict(zip(value, turned, strict=True))


def _choices(field: FieldInfo | None) -> tuple[Any, ...]:
    """The values that a field lists."""
    annotation = field.annotation if field else None
    for each in (annotation, *get_args(annotation)):
        if get_origin(each) is Literal:
            return get_args(each)
    return ()


_MARK = get_args(OriginName)[-1]


def _is_origin(field: FieldInfo | None) -> bool:
    if field is None:
        return False
    return OriginName in get_args(field.annotation) or _MARK in field.metadata


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if value == "":
        return "empty"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
