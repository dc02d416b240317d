"""Split visitors between variants of a site, and keep each on the variant first seen."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl

from pydantic import Field, RootModel, model_validator

from edgeproxy import api
from edgeproxy.api import (
    Config,
    Duration,
    Exchange,
    Fact,
    FieldName,
    Filter,
    Headers,
    Name,
    OriginName,
    Outcome,
    PolicyView,
    Remark,
    Response,
    Target,
    Template,
    fill,
    normalise_path,
)

from .buckets import variant_of

APPLIED = Fact[str]("split.applied", log="variant")  # such as `hero=bold`, for the log
ASSIGNED = Fact[str]("split.assigned", log="assigned")  # the same, of visitors who are new to it
BOT = Fact[bool]("content.bot", default=False)

Variant = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]  # stands in a cookie as it is


class Experiment(Config):
    """A split of visitors between variants of a site."""

    weights: dict[Variant, Annotated[float, Field(ge=0)]]
    """Variants and their shares, on any scale."""
    control: Variant | None = None
    """The variant that bots see; the first one if absent."""
    cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """The name of the cookie that keeps a visitor on a variant; `ep_` and the name if absent."""
    cookie_ttl: Duration = "90d"  # type: ignore[assignment]
    """How long the cookie lasts."""
    by: Annotated[str, Field(pattern=r"^(client|header:[A-Za-z0-9-]+|cookie:[A-Za-z0-9_.-]+)$")] = (
        "client"
    )
    """What tells visitors apart who have no cookie yet: `client` (the address), `header:NAME` or
    `cookie:NAME`."""
    salt: str | None = None
    """What the hash is keyed with; experiments with one salt put a visitor in matching variants."""
    force: bool = True
    """Whether `?NAME=VARIANT` chooses a variant, for checking."""

    @model_validator(mode="after")
    def _weights_make_sense(self) -> Self:
        if not sum(self.weights.values()):
            raise ValueError("the weights add to 0; give at least one variant a weight")
        if self.control is not None and self.control not in self.weights:
            raise ValueError(f"control {self.control!r} is not among the variants")
        return self


class Experiments(RootModel[dict[Name, Experiment]]):
    """A/B splits by name; the filter `experiment` says what their variants change."""


# How a visitor came to a variant, in the words of OpenFeature where it has one.
FORCED = "FORCED"  # by the query
TARGETING_MATCH = "TARGETING_MATCH"  # a bot, which sees the control
CACHED = "CACHED"  # by the cookie
SPLIT = "SPLIT"  # by weight


class RunningExperiment:
    """An experiment ready to assign visitors."""

    def __init__(self, name: str, spec: Experiment) -> None:
        self.name, self.spec = name, spec
        self.cookie = spec.cookie or f"ep_{name}"
        self.salt = spec.salt or name
        self.control = spec.control or next(iter(spec.weights))
        self.variant = Fact[str](f"split.{name}", default=self.control)
        self.reason = Fact[str](f"split.{name}.reason", default=FORCED)

    def annotate(self, exchange: Exchange) -> None:
        exchange.facts.defer(self.variant, partial(self._assign, exchange))
        exchange.facts.defer(self.reason, partial(self._reason, exchange))

    def _assign(self, exchange: Exchange) -> str:
        variant, reason = self._assigned(exchange)
        exchange.facts[self.reason] = reason
        return variant

    def _reason(self, exchange: Exchange) -> str:
        exchange.facts[self.variant]  # which tells its reason, unless a rehearsal has set it
        return exchange.facts[self.reason]

    def _assigned(self, exchange: Exchange) -> tuple[str, str]:
        """Forced by the query, control for bots, kept by the cookie, or by hash, in this order.

        A value that is not a variant of this experiment counts as none.
        """
        weights = self.spec.weights
        if self.spec.force and exchange.request.query and self.name in exchange.request.query:
            forced = dict(parse_qsl(exchange.request.query)).get(self.name)
            if forced in weights:
                return forced, FORCED
        if exchange.facts.get(BOT):
            return self.control, TARGETING_MATCH
        kept = exchange.request.cookies().get(self.cookie)
        if kept in weights:
            return kept, CACHED
        return variant_of(self._attribute(exchange), self.salt, weights), SPLIT

    def _attribute(self, exchange: Exchange) -> str:
        kind, _, name = self.spec.by.partition(":")
        value = None
        if kind == "header":
            value = exchange.request.headers.joined(name)
        elif kind == "cookie":
            value = exchange.request.cookies().get(name)
        return value or str(exchange.client)

    def set_cookie(self, exchange: Exchange) -> str | None:
        """The cookie that keeps a visitor on a variant; a forced one lasts for the session."""
        variant, reason = exchange.facts[self.variant], exchange.facts[self.reason]
        if reason not in (SPLIT, FORCED):
            return None
        age = f"; Max-Age={int(self.spec.cookie_ttl)}" if reason == SPLIT else ""
        secure = "; Secure" if exchange.request.scheme == "https" else ""
        return f"{self.cookie}={variant}; Path=/{age}; SameSite=Lax; HttpOnly{secure}"


class VariantChange(Config):
    """What is different for the visitors of one variant."""

    origin: OriginName | None = None
    """Another origin answers."""
    path: str | None = None
    """Another path is asked for; wildcards are filled as in `rewrite`."""
    prefix: str | None = None
    """This is put in front of the path."""
    redirect: str | None = None
    """The answer is a 302 to this path, unless the visitor is there already."""
    request_headers: dict[FieldName, Template] = {}
    """Fields set on the request to the origin."""
    response_headers: dict[FieldName, Template] = {}
    """Fields set on the answer."""


class ExperimentFilter(Filter):
    """What the variants of an A/B split change on this route. A plain text is the name."""

    plain_keys = ("name",)

    name: Name
    """The experiment, one of the section `experiments`."""
    variants: dict[Variant, VariantChange] = {}
    """For each variant that differs, what changes."""

    def bind(self, plugin: "Plugin", policy: PolicyView) -> object:
        running = plugin.experiments.get(self.name)
        if running is None:
            known = ", ".join(sorted(plugin.experiments)) or "none"
            raise ValueError(f"there is no experiment {self.name!r}; known: {known}")
        for variant in self.variants:
            if variant not in running.spec.weights:
                known = ", ".join(running.spec.weights)
                raise ValueError(f"{self.name!r} has no variant {variant!r}; variants: {known}")
        return Split(running, self.variants)

    def outcomes(self) -> Iterable[Outcome]:
        for variant, change in self.variants.items():
            yield Outcome(
                split=f"experiment {self.name}",
                case=variant,
                origin=change.origin,
                path=change.path,
                prefix=change.prefix,
                redirect=change.redirect,
                at=("variants", variant),
            )


class Split:
    """An experiment on one route."""

    def __init__(self, running: RunningExperiment, variants: Mapping[str, VariantChange]) -> None:
        self.running = running
        self.variants = variants

    def _variant(self, exchange: Exchange) -> str:
        return exchange.facts[self.running.variant]

    def _change(self, exchange: Exchange) -> VariantChange:
        return self.variants.get(self._variant(exchange), _NO_CHANGE)

    def admit(self, exchange: Exchange) -> Response | None:
        exchange.varies_by.add("cookie")
        applied = f"{self.running.name}={self._variant(exchange)}"
        _append(exchange, APPLIED, applied)
        if exchange.facts[self.running.reason] == SPLIT:
            _append(exchange, ASSIGNED, applied)
        change = self._change(exchange)
        if change.redirect is None:
            return None
        location = normalise_path(fill(change.redirect, exchange.captures))
        if location == exchange.request.path:
            return None
        query = exchange.request.query
        return Response(302, Headers.of(("location", f"{location}?{query}" if query else location)))

    def route(self, exchange: Exchange) -> Target | None:
        target, change = exchange.target, self._change(exchange)
        assert target is not None
        if exchange.facts[self.running.reason] == FORCED:
            target = Target(target.origin, target.path, self._without_force(target.query))
        if change.origin is not None:
            target = target.with_origin(change.origin)
        if change.path is not None:
            target = target.with_path(normalise_path(fill(change.path, exchange.captures)))
        if change.prefix is not None:
            target = target.with_path(change.prefix.rstrip("/") + target.path)
        return target

    def _without_force(self, query: str | None) -> str | None:
        kept = [
            pair for pair in (query or "").split("&") if pair.partition("=")[0] != self.running.name
        ]
        return "&".join(kept) or None

    def cache_key(self, exchange: Exchange) -> Iterable[tuple[str, str]]:
        yield self.running.variant.name, self._variant(exchange)
        for value in self._change(exchange).request_headers.values():
            for name in value.facts:
                yield name, str(exchange.facts.named(name))

    def before_fetch(self, exchange: Exchange, request: api.Request) -> None:
        for name, value in self._change(exchange).request_headers.items():
            request.headers.set(name, value.render(exchange))

    def before_send(self, exchange: Exchange, response: Response) -> None:
        for name, value in self._change(exchange).response_headers.items():
            exchange.set_field(response, name, value)
        cookie = self.running.set_cookie(exchange)
        if cookie is not None:
            exchange.cookies_to_set.append(cookie)


_NO_CHANGE = VariantChange()


def _append(exchange: Exchange, fact: Fact[str], text: str) -> None:
    before = exchange.facts.get(fact)
    exchange.facts[fact] = f"{before},{text}" if before else text


class Plugin(api.Plugin):
    repeatable = True
    Config = Experiments
    section = "experiments"
    filters = {"experiment": ExperimentFilter}
    needs = ("content",)  # for the fact that tells bots
    remarks = ("unused-experiment", "variant-without-weight")

    def __init__(self, config: Experiments) -> None:
        super().__init__(config)
        self.experiments = {
            name: RunningExperiment(name, spec) for name, spec in config.root.items()
        }

    def facts(self) -> Iterable[Fact[Any]]:
        yield APPLIED
        yield ASSIGNED
        for running in self.experiments.values():
            yield running.variant
            yield running.reason

    @api.hookimpl
    def annotate(self, exchange: Exchange) -> None:
        for running in self.experiments.values():
            running.annotate(exchange)

    def review(self, filters: Sequence[Filter]) -> Iterable[Remark]:
        used = {each.name for each in filters if isinstance(each, ExperimentFilter)}
        for name, running in self.experiments.items():
            if name not in used:
                reason = f"no route has the experiment {name!r}, so nobody takes part in it"
                fix = f"write `experiment: {name}` on a route, or remove it"
                yield Remark("unused-experiment", (name,), reason, fix)
            yield from _without_weight(name, running.spec.weights)


def _without_weight(name: str, weights: Mapping[str, float]) -> Iterable[Remark]:
    for variant, weight in weights.items():
        if not weight:
            reason = f"nobody is given the variant {variant!r} of {name!r}: its weight is 0"
            fix = "give it a weight, or remove it once no visitor has its cookie any more"
            yield Remark("variant-without-weight", (name, "weights", variant), reason, fix)
