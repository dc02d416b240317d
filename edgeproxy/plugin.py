"""What a plugin is made of: configuration models, matchers and filters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, RootModel, model_validator
from pydantic_core import PydanticKnownError, core_schema

from edgeproxy.claims import Constraint, Outcome, Remark, Resource
from edgeproxy.http import Exchange, Fact

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

    def constraints(self, plugin: Any) -> Sequence[Constraint]:
        """What is asked, thing by thing: `matches` is true exactly where all of it is met.

        `edgeproxy check` reasons with it. Unless overridden, all it knows is that two matchers with
        the same value match the same.
        """
        kind = type(self)
        return [
            Constraint(f"{kind.__module__}.{kind.__qualname__} {self.root!r}", frozenset([True]))
        ]


class Filter(Config):
    """One entry of a route's `filters`: a plugin's hooks scoped to that route.

    Subclass it with the fields of its block, and write as methods the hooks it acts in, named as
    in `edgeproxy.hooks`: `admit`, `route`, `cache_key`, `before_fetch`, `after_fetch`,
    `fetch_failed`, `recover`, `before_send`, `finish`. `answers` says that it answers or chooses an
    origin for every request, so that its route needs no origin; `recovers` that its `recover`
    answers every failure. `max_body_bytes` above 0 says that it reads that much of an answer's body
    into memory.
    """

    answers: ClassVar[bool] = False
    recovers: ClassVar[bool] = False
    max_body_bytes: ClassVar[int] = 0

    def bind(self, plugin: Any, policy: PolicyView) -> object:
        """The object whose hooks run. Override to look something up once; ValueError is a fault."""
        return self

    def outcomes(self) -> Iterable[Outcome]:
        """Other origins, other paths and redirects that it may choose, for `edgeproxy check`."""
        return ()


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
    `remarks` lists the codes of what `review` may remark.
    """

    Config: ClassVar[type[BaseModel] | None] = None
    section: ClassVar[str] = ""
    matchers: ClassVar[Mapping[str, type[Matcher[Any]]]] = {}
    filters: ClassVar[Mapping[str, type[Filter]]] = {}
    on_error: ClassVar[Literal["open", "closed"]] = "open"
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    repeatable: ClassVar[bool] = False
    remarks: ClassVar[tuple[str, ...]] = ()

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

    def review(self, filters: Sequence[Filter]) -> Iterable[Remark]:
        """What is odd about its section; `filters` are its own, in all routes. For `check`."""
        return ()

    def resources(self) -> Iterable[Resource]:
        """What of the machine it takes up, as it is configured. For `doctor`."""
        return ()
