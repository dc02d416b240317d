from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import RootModel

from edgeproxy.errors import PolicyError
from edgeproxy.plugin import Config, Matcher, Plugin
from edgeproxy.policy.faults import compile_fault
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.load import load, parse
from edgeproxy.policy.source import write
from edgeproxy.policy.vocabulary import FIRST_PARTY_ORDER

ONE = 'version: 1\norigins: {pages: {url: "https://acme.github.io/docs/"}}\n'
TWO = """version: 1
origins:
  pages: {url: "https://acme.github.io/docs/"}
  next: {url: "https://acme.github.io/next/"}
"""
RICH = """version: 1
plugins: [acme_auth]
trusted_proxies: [10.0.0.0/8, "::1/128"]
origins:
  pages: {url: "https://acme.github.io/docs/", connect_timeout: 2s}
  next: {url: "http://localhost:8000", kind: http, max_connections: 5}
limits: {body_size: 5MB, connections: 100}
weather: {station: roof, token: "${env:EDGE_TOKEN}"}
auth: {realm: docs, key: "${env:EDGE_TOKEN}"}
cache:
  memory: {max_size: 64MiB}
  max_object_size: 1MiB
  rules:
    html: {ttl: 10m, status_ttl: {404: 1m}, query: [page]}
    assets: {ttl: 30d, query: drop, tags: [asset]}
routes:
  - name: docs
    match: {path: /docs/**, host: "*.Example.ORG", weather: [rain, NO]}
    greet: {text: "${weather}"}
    origin: pages
    cache: html
    filters: [{sunny: {parts: {a: {share: 1}}}}, {greet: {text: again, field: X-Again}}]
  - name: split
    matches: [{signed: true}, {path: [/a, {exact: /b}, {regex: "/c+"}]}]
    backend_refs: [{name: pages, weight: 9}, {name: next}]
    cache: false
    websocket: true
  - name: gone
    reply:
"""


def codes(error: PolicyError) -> list[str]:
    return [fault.code for fault in error.faults]


def entry(name: str, plugin: type[Plugin], distribution: str = "edgeproxy") -> Installed:
    return Installed(name, lambda: plugin, distribution, "1")


# ------------------------------------------------------------------ what a policy holds


def test_policy_holds_typed_models(registry: Registry, env: Mapping[str, str]) -> None:
    policy = parse(RICH, "site.yaml", registry, env=env)
    assert policy.files == ("site.yaml",)
    assert policy.core.origins["pages"].connect_timeout == 2
    assert policy.core.limits.body_size == 5_000_000
    assert policy.cache.rules["html"].status_ttl == {404: 60}
    assert [route.core.name for route in policy.routes] == ["docs", "split", "gone"]
    docs, split, gone = policy.routes
    assert docs.core.origin == "pages"
    assert docs.matches[0].core.host == ("*.example.org",)
    assert docs.matches[0].clauses[0].matcher.root == ("rain", "NO")
    assert [match.core.path is None for match in split.matches] == [True, False]
    assert split.core.cache is False
    assert gone.core.origin is None
    assert str(docs.place) == "site.yaml:17:11"


def test_filters_in_the_route_come_before_those_of_its_list(
    registry: Registry, env: Mapping[str, str]
) -> None:
    docs = parse(RICH, "p", registry, env=env).routes[0]
    assert [bound.key for bound in docs.filters] == ["greet", "sunny", "greet"]
    assert docs.filters[0].hooks is docs.filters[0].filter
    assert str(docs.filters[0].place) == "p:19:12"


def test_routes_without_an_origin_get_the_only_one(registry: Registry) -> None:
    policy = parse(f"{ONE}routes: [{{name: a}}, {{name: b, origin: pages}}]", "p", registry)
    assert [route.core.origin for route in policy.routes] == ["pages", "pages"]


def test_policy_without_routes_sends_all_to_the_only_origin(registry: Registry) -> None:
    (route,) = parse(ONE, "p", registry).routes
    assert (route.core.name, route.core.origin, route.matches) == ("all", "pages", ())


def test_memory_tier_is_on_unless_it_is_set_or_not_there(registry: Registry, plugins: Any) -> None:
    (memory,) = parse(ONE, "p", registry).plugins
    assert memory.instance.config.max_size == 2**28
    (memory,) = parse(f"{ONE}cache: {{memory: {{max_size: 1KiB}}}}", "p", registry).plugins
    assert memory.instance.config.max_size == 1024
    assert parse(ONE, "p", Registry()).plugins == ()
    broken = Registry([Installed("memory_cache", plugins.missing("cachetools"))])
    assert parse(ONE, "p", broken).plugins == ()


# ------------------------------------------------------------------ long form and version


def test_long_form_gives_the_same_policy(registry: Registry, env: Mapping[str, str]) -> None:
    policy = parse(RICH, "p", registry, env=env)
    again = parse(write(policy.expanded), "p", registry, env=env)
    assert again.expanded == policy.expanded
    assert again.version == policy.version
    assert [route.core for route in again.routes] == [route.core for route in policy.routes]


def test_version_is_of_the_content_alone(registry: Registry) -> None:
    version = parse(ONE, "a.yaml", registry).version
    assert len(version) == 12
    assert int(version, 16) >= 0
    assert parse(f"# the site\n\n{ONE}", "b.yaml", registry).version == version
    assert parse(f"{ONE}encoded_slashes: true\n", "a.yaml", registry).version != version


def test_long_form_and_reprs_never_show_a_secret(
    registry: Registry, env: Mapping[str, str]
) -> None:
    policy = parse(RICH, "p", registry, env=env)
    assert policy.plugins[-1].instance.config.key.value == env["EDGE_TOKEN"]
    shown = repr(policy) + write(policy.expanded)
    shown += "".join(repr(plugin.instance.config) for plugin in policy.plugins)
    assert env["EDGE_TOKEN"] not in shown
    assert "${env:EDGE_TOKEN}" in write(policy.expanded)


# ------------------------------------------------------------------ plugins


def test_plugins_run_in_the_order_of_ours_then_as_listed() -> None:
    names = ["zebra", *reversed(FIRST_PARTY_ORDER), "alpha"]
    own = [entry(name, Plugin) for name in names]
    theirs = [entry("acme_b", Plugin, "acme"), entry("acme_a", Plugin, "acme")]
    everything = ", ".join(["acme_b", "zebra", "acme_a", *FIRST_PARTY_ORDER, "alpha"])
    policy = parse(f"{ONE}plugins: [{everything}]\n", "p", Registry([*theirs, *own]))
    found = [plugin.name for plugin in policy.plugins]
    assert found == [*FIRST_PARTY_ORDER, "alpha", "zebra", "acme_b", "acme_a"]


def test_code_of_an_unlisted_distribution_is_never_imported() -> None:
    def forbidden() -> object:
        raise AssertionError("imported")

    strangers = [Installed(name, forbidden, "stranger", "1") for name in ("geo", "weather")]
    parse(ONE, "p", Registry(strangers))
    with pytest.raises(PolicyError) as caught:
        parse(
            f"{ONE}weather: {{}}\nroutes: [{{name: a, match: {{rain: 1}}}}]",
            "p",
            Registry(strangers),
        )
    assert codes(caught.value) == ["unknown-key", "unknown-key"]


def test_plugin_that_nobody_uses_is_not_made(registry: Registry) -> None:
    assert [plugin.name for plugin in parse(ONE, "p", registry).plugins] == ["memory_cache"]


@pytest.mark.parametrize(
    "use",
    [
        "weather: {}",
        "weather:",
        "plugins: [weather]",
        "routes: [{name: a, match: {weather: rain}}]",
        "routes: [{name: a, greet: {text: hi}}]",
        "routes: [{name: a, filters: [{greet: {text: hi}}]}]",
    ],
)
def test_plugin_is_made_when_the_policy_needs_it(use: str, registry: Registry) -> None:
    policy = parse(f"{ONE}{use}\n", "p", registry)
    assert [plugin.name for plugin in policy.plugins] == ["memory_cache", "weather"]
    assert policy.plugins[1].distribution == "edgeproxy 0.1.0"


def test_facts_of_a_plugin_are_known_only_if_it_is_used(registry: Registry, plugins: Any) -> None:
    class Other(Plugin):
        filters: ClassVar = {"greet_too": plugins.Greet}

    several = Registry([*registry.entries, entry("other", Other)])
    text = f'{ONE}routes: [{{name: a, greet_too: {{text: "${{weather}}"}}}}]\n'
    with pytest.raises(PolicyError, match="no plugin in this policy sets the fact 'weather'"):
        parse(text, "p", several)
    parse(f"{text}weather: {{}}\n", "p", several)


def test_fault_of_a_plugin_does_not_blame_templates(registry: Registry) -> None:
    text = f'{ONE}weather: {{station: moon}}\nroutes: [{{name: a, greet: {{text: "${{sun}}"}}}}]\n'
    with pytest.raises(PolicyError) as caught:
        parse(text, "p", registry)
    assert codes(caught.value) == ["bad-value"]


def test_reload_keeps_what_a_plugin_holds(registry: Registry, env: Mapping[str, str]) -> None:
    before = parse(RICH, "p", registry, env=env)
    held = {plugin.name: plugin for plugin in before.plugins}
    after = parse(RICH.replace("64MiB", "65MiB"), "p", registry, env=env, reuse=held)
    same = {plugin.name: held[plugin.name] is plugin for plugin in after.plugins}
    assert same == {"memory_cache": False, "weather": True, "acme_auth": True}


def test_reload_with_another_secret_makes_the_plugin_anew(
    registry: Registry, env: Mapping[str, str]
) -> None:
    held = {plugin.name: plugin for plugin in parse(RICH, "p", registry, env=env).plugins}
    after = parse(RICH, "p", registry, env={"EDGE_TOKEN": "new"}, reuse=held)
    assert [held[plugin.name] is plugin for plugin in after.plugins] == [True, False, False]


def test_section_of_any_model_is_read() -> None:
    class Part(Config):
        share: float

    class Parts(RootModel[dict[str, Part]]):
        pass

    class Splits(Plugin):
        Config = Parts

    several = Registry([entry("splits", Splits)])
    policy = parse(f"{ONE}splits: {{a: {{share: 1}}}}\n", "p", several)
    assert policy.plugins[0].instance.config.root["a"].share == 1
    assert parse(f"{ONE}splits: {{}}\n", "p", several).plugins[0].instance.config.root == {}
    with pytest.raises(PolicyError) as caught:
        parse(f"{ONE}splits: {{a: {{shaer: 1}}}}\n", "p", several)
    assert str(caught.value).startswith(
        "p:3:14: unknown key 'shaer' in splits.a; did you mean 'share'? keys: share [unknown-key]"
    )


def test_model_that_crashes_is_a_fault_of_its_plugin() -> None:
    class Crash(Matcher[str]):
        @classmethod
        def model_validate(cls, *args: Any, **kwargs: Any) -> Any:
            raise RecursionError("too deep")

    class Crashing(Plugin):
        matchers: ClassVar = {"crash": Crash}

    with pytest.raises(PolicyError, match="plugin 'crashing' failed in the model Crash") as caught:
        parse(
            f"{ONE}routes: [{{name: a, match: {{crash: b}}}}]",
            "p",
            Registry([entry("crashing", Crashing)]),
        )
    assert codes(caught.value) == ["plugin-failed"]


# ------------------------------------------------------------------ files


def test_folder_is_read_by_name_and_not_below(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "b.yaml").write_text("version: 1\nroutes: [{name: second}]\n")
    (tmp_path / "a.yml").write_text(f"{ONE}routes: [{{name: first}}]\n")
    (tmp_path / "a_test.yaml").write_text("no policy")
    (tmp_path / "c.json").write_text("no policy")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.yaml").write_text("no policy")
    policy = load([tmp_path], registry)
    assert [route.core.name for route in policy.routes] == ["first", "second"]
    assert policy.files == (str(tmp_path / "a.yml"), str(tmp_path / "b.yaml"))


def test_files_are_merged_in_the_order_given(tmp_path: Path, registry: Registry) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text("version: 1\nroutes: [{name: a}]\ntrusted_proxies: [10.0.0.0/8]\n")
    two.write_text(f"{ONE}routes: [{{name: b}}]\ntrusted_proxies: [11.0.0.0/8]\n")
    policy = load([two, one], registry)
    assert [route.core.name for route in policy.routes] == ["b", "a"]
    assert [str(network) for network in policy.core.trusted_proxies] == ["11.0.0.0/8", "10.0.0.0/8"]


def test_file_named_twice_is_read_once(tmp_path: Path, registry: Registry) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(ONE)
    assert load([file, tmp_path, str(file)], registry).files == (str(file),)


def test_file_that_is_named_is_read_whatever_its_name(tmp_path: Path, registry: Registry) -> None:
    file = tmp_path / "site_test.conf"
    file.write_text(ONE)
    assert load([file], registry).files == (str(file),)


def test_every_path_that_cannot_be_read_is_named(tmp_path: Path, registry: Registry) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PolicyError) as caught:
        load([tmp_path / "none.yaml", empty], registry)
    assert str(caught.value) == (
        f"cannot read {tmp_path / 'none.yaml'}: No such file or directory [unreadable]\n"
        f"cannot read {empty}: the folder holds no policy (*.yaml) [unreadable]"
    )
    with pytest.raises(PolicyError, match="no policy file is named"):
        load([], registry)


def test_faults_are_in_the_order_of_the_files(tmp_path: Path, registry: Registry) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text("version: 1\nfrist: 1\nroutes: [{name: a, orign: b}]\n")
    two.write_text(f"{ONE}secnod: 1\nlimits: {{connections: x}}\n")
    with pytest.raises(PolicyError) as caught:
        load([two, one], registry)
    places = [(Path(f.place.file).name, f.place.line) for f in caught.value.faults if f.place]
    assert places == [("2.yaml", 3), ("2.yaml", 4), ("1.yaml", 2), ("1.yaml", 3)]


# ------------------------------------------------------------------ short forms are strict


@pytest.mark.parametrize(
    ("route", "code"),
    [
        ("{name: a, match: []}", "bad-type"),
        ("{name: a, match: null}", "bad-type"),
        ("{name: a, matches: [null]}", "bad-type"),
        ("{name: a, filters: [{}]}", "bad-type"),
        ("{name: a, filters: [null]}", "bad-type"),
        ("{name: a, backend_refs: {name: pages}}", "bad-type"),
        ("{name: a, greet: []}", "bad-type"),
        ("{name: a, match: {weather: {}}}", "bad-type"),
        ("{name: a, match: {host: ''}}", "bad-pattern"),
        ("{name: a, match: {path: null}}", "bad-value"),
        ("{name: a, match: {host: []}}", "bad-value"),
        ("{name: a, match: {weather: []}}", "bad-value"),
    ],
)
def test_shape_of_a_route_is_checked(route: str, code: str, registry: Registry) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(f"{ONE}routes: [{route}]\n", "p", registry)
    assert code in codes(caught.value)


def test_evil_pattern_is_taken_or_refused_at_once(registry: Registry) -> None:
    for pattern in (
        "(a+)+$",
        "(a|a)*$",
        "([a-zA-Z]+)*$",
        "(.*a){20}",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
    ):
        parse(f"{ONE}routes: [{{name: a, match: {{path: {{regex: '{pattern}'}}}}}}]", "p", registry)


def test_match_key_that_cannot_be_compiled_is_a_fault_at_its_value(
    registry: Registry, env: Mapping[str, str]
) -> None:
    clause = parse(RICH, "p", registry, env=env).routes[1].matches[0].clauses[0]
    missing = compile_fault(clause, ImportError("No module named 'jwt'", name="jwt.api"))
    assert str(missing).startswith(
        "p:24:24: plugin 'acme_auth' needs jwt, which is not installed; "
        "run: pip install 'acme-edge[jwt]' [missing-extra]"
    )
    assert compile_fault(clause, ValueError("no such realm")).message == "no such realm"
    crash = compile_fault(clause, KeyError("x"))
    assert (crash.code, crash.message) == (
        "plugin-failed", "plugin 'acme_auth' failed in signed.compile: KeyError: 'x'"
    )  # fmt: skip
