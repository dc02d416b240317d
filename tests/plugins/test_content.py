"""The match keys of the plugin `content`, from the policy's text to a decision."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from edgeproxy.api import Body, Exchange, Fact, Headers, Matcher, Request
from edgeproxy_content.expression import expression_test, names_in
from edgeproxy_content.plugin import BOT, DEVICE, LANGUAGE, Content, Plugin

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "content.md"


def read(key: str, value: Any, facts: list[str] | None = None) -> Matcher[Any]:
    context = None if facts is None else {"facts": facts}
    return Plugin.matchers[key].model_validate(value, context=context)


def matches(key: str, value: Any, exchange: Exchange, **section: Any) -> bool:
    plugin = Plugin(Content.model_validate(section))
    plugin.annotate(exchange)
    return read(key, value).compile(plugin)(exchange)


def exchange(
    *fields: tuple[str, str],
    method: str = "GET",
    path: str = "/",
    query: str | None = None,
    body: bytes = b"",
) -> Exchange:
    return Exchange(
        Request(method, "example.org", path, query, Headers.of(*fields), Body(body), "https")
    )


def fault(key: str, value: Any, **section: Any) -> str:
    """What is wrong with a value, wherever it is found out at load."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is the caller's to check
        matches(key, value, exchange(), **section)
    if isinstance(caught.value, ValidationError):
        return "\n".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in caught.value.errors()
        )
    return str(caught.value)


# ------------------------------------------------------------------- method, scheme


def test_method_is_exact_or_any_of_a_list() -> None:
    assert matches("method", "GET", exchange())
    assert matches("method", ["POST", "GET"], exchange())
    assert not matches("method", "GET", exchange(method="HEAD"))
    assert not matches("method", "GET", exchange(method="get"))
    assert matches("method", "PURGE", exchange(method="PURGE"))


def test_method_in_lower_case_is_a_fault() -> None:
    assert "write GET" in fault("method", "get")
    assert fault("method", [])


def test_scheme_is_the_clients() -> None:
    assert matches("scheme", "https", exchange())
    assert not matches("scheme", "http", exchange())
    assert fault("scheme", "ftp")


# ------------------------------------------------------------------- header, query, cookie

CONDITIONS: list[tuple[Any, str, bool]] = [
    ("eu", "eu", True),
    ("eu", "EU", False),
    ("eu", "europe", False),
    ("", "", True),
    (["eu", "us"], "us", True),
    (["eu", "us"], "as", False),
    ({"exact": "eu"}, "eu", True),
    ({"exact": "EU", "ignore_case": True}, "eu", True),
    ({"exact": ["A", "B"], "ignore_case": True}, "b", True),
    ({"prefix": "de"}, "de-CH", True),
    ({"prefix": "de"}, "fr, de", False),
    ({"prefix": ["de", "fr"]}, "fr", True),
    ({"prefix": "DE", "ignore_case": True}, "de-ch", True),
    ({"suffix": "-CH"}, "de-CH", True),
    ({"suffix": "-ch"}, "de-CH", False),
    ({"suffix": "-ch", "ignore_case": True}, "de-CH", True),
    ({"contains": "web"}, "a/webp", True),
    ({"contains": ["x", "webp"]}, "a/webp", True),
    ({"contains": "WEB", "ignore_case": True}, "a/webp", True),
    ({"contains": "png"}, "a/webp", False),
    ({"regex": "v[0-9]+"}, "v12", True),
    ({"regex": "v[0-9]+"}, "xv12", False),
    ({"regex": "v[0-9]+"}, "v12x", False),
    ({"regex": "V[0-9]+", "ignore_case": True}, "v1", True),
    ({"regex": "a|b.*"}, "ax", False),
    ({"regex": ""}, "", True),
    ({"present": True}, "", True),
    ({"present": True}, "x", True),
    ({"present": False}, "x", False),
]


@pytest.mark.parametrize(("condition", "value", "expected"), CONDITIONS)
def test_condition(condition: Any, value: str, expected: bool) -> None:
    assert matches("header", {"x-a": condition}, exchange(("X-A", value))) is expected
    assert matches("cookie", {"a": condition}, exchange(("cookie", f"z=1; a={value}"))) is expected
    assert matches("query", {"a": condition}, exchange(query=f"z=1&a={value}")) is expected


@pytest.mark.parametrize(("condition", "_value", "_expected"), CONDITIONS)
def test_absent_value_meets_present_false_alone(
    condition: Any, _value: str, _expected: bool
) -> None:
    expected = condition == {"present": False}
    for key in ("header", "cookie", "query"):
        assert matches(key, {"a": condition}, exchange(("b", "1"), query="b=1")) is expected


def test_every_named_field_must_meet_its_condition() -> None:
    both = {"x-a": "1", "x-b": {"prefix": "2"}}
    assert matches("header", both, exchange(("x-a", "1"), ("x-b", "22")))
    assert not matches("header", both, exchange(("x-a", "1"), ("x-b", "3")))
    assert not matches("header", both, exchange(("x-a", "1")))
    assert matches("cookie", {"a": "1", "b": "2"}, exchange(("cookie", "a=1"), ("cookie", "b=2")))
    assert not matches("query", {"a": "1", "b": "2"}, exchange(query="a=1"))


def test_lines_of_a_header_are_one_list() -> None:
    two_lines = exchange(("x-a", "1"), ("X-A", "2"))
    assert matches("header", {"X-a": "1, 2"}, two_lines)
    assert not matches("header", {"x-a": "1"}, two_lines)


def test_header_is_latin_1() -> None:
    assert matches("header", {"x-a": "größe"}, exchange(("x-a", "größe")))


def test_of_one_cookie_the_first_counts() -> None:
    assert matches("cookie", {"a": "1"}, exchange(("cookie", "a=1; a=2")))
    assert not matches("cookie", {"a": "2"}, exchange(("cookie", "a=1; a=2")))


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("q=a%20b", "a b"),
        ("q=a+b", "a b"),
        ("q=a%2Bb", "a+b"),
        ("q=%2561", "%61"),  # decoded once
        ("q=%zz", "%zz"),
        ("q=%ff", "�"),
        ("q=%C3%A4", "ä"),
        ("%71=1", "1"),
        ("q", ""),
        ("q=", ""),
        ("q=a=b", "a=b"),
        ("q=1;q=2", "1;q=2"),
        ("x&&q=1", "1"),
        ("q=0&q=1&q=2", "2"),  # any value of a repeated name
        ("q=0&q=1&q=2", "0"),
    ],
)
def test_query_is_decoded_once(query: str, value: str) -> None:
    assert matches("query", {"q": value}, exchange(query=query))


def test_query_without_the_name_does_not_match() -> None:
    for query in (None, "", "p=q", "Q=1"):
        assert not matches("query", {"q": {"present": True}}, exchange(query=query))
        assert matches("query", {"q": {"present": False}}, exchange(query=query))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("header", {}, "at least 1"),
        ("header", {"a b": "1"}, "not a header field name"),
        ("header", {"A": "1", "a": "2"}, "are the same field"),
        ("header", {"a": {}}, "exactly one of exact, prefix, suffix, contains, regex, present"),
        ("header", {"a": {"exact": "1", "prefix": "2"}}, "found exact and prefix"),
        ("header", {"a": {"exakt": "1"}}, "a.exakt"),
        ("header", {"a": []}, "at least 1"),
        ("header", {"a": {"prefix": ""}}, "at least 1 character"),
        ("header", {"a": {"present": True, "ignore_case": True}}, "remove it"),
        ("query", {"page": 2}, "write it in quotes: '2'"),
        ("cookie", {"a": [True]}, "write it in quotes: 'true'"),
        ("header", {"a": {"regex": "(a"}}, "a.regex: Value error, '(a' is not an RE2 pattern"),
        ("header", {"a": {"regex": "(?=a)b"}}, "is not an RE2 pattern"),
        ("header", {"a": {"regex": r"(a)\1"}}, "is not an RE2 pattern"),
        ("header", {"a": {"regex": "a" * 5000}}, "4096 characters"),
        ("header", {"a": {"regex": "(a{1,30}){1,30}b{1000}"}}, "steps"),
    ],
)
def test_bad_condition_is_a_fault_at_load(key: str, value: Any, words: str) -> None:
    assert words in fault(key, value)


EVIL = [
    "(a+)+$", "([a-zA-Z]+)*", "(a|aa)+", "(a|a?)+", "(.*a){20}", "(.*a){200}", "(x+x+)+y",
    "((a{1,10}){1,10}){1,10}", "[ab]*a[ab]{12}", "(a?){100}a{100}", ".*.*.*.*.*=.*", "(a*)*(b*)*",
    r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(\pL{1,100}){1,10}", r"(?:[a-z]{0,30}){30}",
    r"^([\w.-]+)+@([\w-]+\.)+[a-z]{2,}$",
]  # fmt: skip


@pytest.mark.parametrize("source", EVIL)
def test_evil_pattern_is_linear_or_refused(source: str) -> None:
    # A backtracking engine would not come back from these within the time limit of a test.
    try:
        matcher = read("header", {"a": {"regex": source}})
    except ValidationError:
        return
    test = matcher.compile(Plugin(Content()))
    assert test(exchange(("a", "a" * 100_000 + "!"))) in (True, False)
    assert test(exchange(("a", "ab" * 50_000))) in (True, False)


def test_dot_matches_a_line_end() -> None:
    form = exchange(
        ("content-type", "application/x-www-form-urlencoded"), method="POST", body=b"a=x%0Aword"
    )
    assert matches("body", {"form": {"a": {"regex": ".*word"}}}, form)


# ------------------------------------------------------------------- language, device, type


def test_language_without_a_section_is_the_clients_favourite() -> None:
    german = exchange(("accept-language", "fr;q=0.4, de-CH, en;q=0.9"))
    assert matches("language", "de", german)
    assert matches("language", ["it", "de-ch"], german)
    assert not matches("language", ["en", "fr"], german)
    assert not matches("language", "d", german)
    assert not matches("language", "de", exchange())
    assert not matches("language", "de", exchange(("accept-language", "*")))


def test_language_with_a_section_is_negotiated() -> None:
    site = {"languages": ["en", "de", "fr"], "default_language": "en"}
    assert matches("language", "de", exchange(("accept-language", "it, de-CH;q=0.5")), **site)
    assert matches("language", "en", exchange(("accept-language", "it")), **site)
    assert matches("language", "en", exchange(), **site)
    assert not matches("language", ["de", "fr"], exchange(), **site)
    assert (
        matches("language", "DE", exchange(("accept-language", "DE")), languages=["en", "de-AT"])
        is False
    )
    assert matches(
        "language", "de", exchange(("accept-language", "de-AT")), languages=["en", "de-AT"]
    )


def test_language_that_the_site_does_not_have_is_a_fault() -> None:
    words = fault("language", ["de", "es"], languages=["en", "de"])
    assert words == "'es' is not in content.languages: en, de"
    assert fault("language", "de_AT")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"languages": ["en", "EN"]}, "stands twice"),
        ({"languages": ["en"], "default_language": "de"}, "is not one of languages: en"),
        ({"default_language": "de"}, "is not one of languages: none"),
        ({"languages": ["e n"]}, "pattern"),
    ],
)
def test_section_that_contradicts_itself_is_a_fault(section: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Content.model_validate(section)


PHONE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/124.0.0.0 Mobile Safari/537.36"
)


def test_device_is_any_of_a_list() -> None:
    assert matches("device", "mobile", exchange(("user-agent", PHONE)))
    assert matches("device", ["tablet", "mobile"], exchange(("User-Agent", PHONE)))
    assert not matches("device", ["desktop", "bot"], exchange(("user-agent", PHONE)))
    assert matches("device", "mobile", exchange(("Sec-CH-UA-Mobile", "?1")))
    assert matches("device", "desktop", exchange(("sec-ch-ua-mobile", "?0")))
    assert fault("device", "phone")


def test_media_type_is_any_of_a_list() -> None:
    api = exchange(("accept", "application/json"), ("accept", "text/html;q=0.9"))
    assert matches("media_type", "application/json", api)
    assert matches("media_type", ["text/csv", "Application/JSON"], api)
    assert not matches("media_type", "text/csv", api)
    assert not matches("media_type", "text/html", exchange())
    assert "write for example" in fault("media_type", "image/*")


def test_facts_are_worked_out_when_asked_for() -> None:
    plugin = Plugin(Content(languages=("en", "de")))
    assert [fact.name for fact in plugin.facts()] == [
        "content.language", "content.device", "content.bot",
    ]  # fmt: skip
    asked = exchange(
        ("user-agent", "Mozilla/5.0 (compatible; Googlebot/2.1)"), ("accept-language", "de")
    )
    plugin.annotate(asked)
    assert asked.facts.known() == {}
    assert (asked.facts[LANGUAGE], asked.facts[DEVICE], asked.facts[BOT]) == ("de", "bot", True)
    quiet = exchange()
    Plugin(Content()).annotate(quiet)
    assert (quiet.facts[LANGUAGE], quiet.facts[DEVICE], quiet.facts[BOT]) == (
        None,
        "desktop",
        False,
    )


# ------------------------------------------------------------------- what the core asks


@pytest.mark.parametrize(
    ("key", "value", "fields"),
    [
        ("method", "GET", ()),
        ("scheme", "https", ()),
        ("query", {"a": "1"}, ()),
        ("header", {"X-B": "1", "x-a": "2"}, ("x-a", "x-b")),
        ("cookie", {"a": "1"}, ("cookie",)),
        ("language", "de", ("accept-language",)),
        ("device", "bot", ("user-agent", "sec-ch-ua-mobile")),
        ("media_type", "text/html", ("accept",)),
        ("body", {"json": {"/a": 1}}, ()),
        ("expression", 'path == "/"', ()),
        ("expression", 'headers["a"] == "" || "c" in headers || headers.b == ""', ("a", "b", "c")),
        ("expression", "has(headers.via) && headers.size() > 2", ("*",)),
        ("expression", 'headers["x-" + path] == ""', ("*",)),
        ("expression", '"x-" + path in headers', ("*",)),
        ("expression", 'path + "x" in headers', ("*",)),
        ("expression", '.headers["x-a"] == "1"', ("x-a",)),
        ("expression", '"headers" == path // headers', ()),
        ("expression", 'cookies["a"] == "1"', ("cookie",)),
        ("expression", 'client == "::1"', ("*",)),
        ("expression", 'facts["geo.country"] == "DE"', ("*",)),
        ("expression", 'facts["content.bot"] == true', ("sec-ch-ua-mobile", "user-agent")),
    ],
)  # fmt: skip
def test_varies_by_names_the_fields_that_decide(key: str, value: Any, fields: Any) -> None:
    assert read(key, value).varies_by == fields


def test_only_a_body_condition_reads_ahead() -> None:
    assert read("body", {"json": {"/a": 1}}).max_body_bytes == 64 * 1024
    assert read("body", {"json": {"/a": 1}, "max_size": "1KiB"}).max_body_bytes == 1024
    assert read("header", {"a": "1"}).max_body_bytes == 0


def test_long_form_says_the_same() -> None:
    for key, value in [("header", {"a": "1"}), ("query", {"a": ["1", "2"]}), ("method", "GET")]:
        long_form = read(key, value).model_dump(mode="json", exclude_defaults=True)
        assert read(key, long_form) == read(key, value)


@pytest.mark.parametrize("key", Plugin.matchers)
def test_every_key_has_a_schema(key: str) -> None:
    assert Plugin.matchers[key].model_json_schema()


def test_every_example_of_the_page_loads() -> None:
    blocks = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1:]
    seen = set()
    for block in blocks:
        policy = yaml.safe_load(block.partition("```")[0])
        plugin = Plugin(Content.model_validate(policy.get("content", {})))
        for route in policy["routes"]:
            for clauses in route.get("matches", []):
                for key in clauses.keys() & Plugin.matchers.keys():
                    seen.add(key)
                    assert callable(read(key, clauses[key]).compile(plugin))
    assert seen == set(Plugin.matchers)


# ------------------------------------------------------------------- expression

COUNTRY = Fact[Any]("geo.country")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('method == "GET" && scheme == "https" && host == "example.org"', True),
        ('path == "/a b" && query["n"] == "1" && size(query) == 2', True),
        ('headers["x-a"] == "1, 2" && "x-b" in headers && !("x-c" in headers)', True),
        ('headers.exists(name, name == "x-b")', True),
        ('has(headers.via) || cookies["c"].startsWith("v")', True),
        ('client == "127.0.0.1"', True),
        ('facts["geo.country"] in ["DE", "FR"]', True),
        ('facts["geo.country"] == "US"', False),
        ('facts["geo.asn"] == null && facts["geo.asn"] != 3', True),
        ('path.matches("^/a.*$")', True),
        ("false", False),
        # What fails does not match; CEL's error values are true for Python.
        ('headers["x-z"] == "1"', False),
        ('headers["x-z"] != "1"', False),
        ('facts["geo.country"] > 3', False),
        ("1 / 0 == 1", False),
        ('headers["x-z"] == "1" || true', True),
    ],
)
def test_expression(source: str, expected: bool) -> None:
    asked = exchange(
        ("x-a", "1"), ("X-A", "2"), ("X-B", "b"), ("cookie", "c=v"), path="/a%20b", query="n=1&m"
    )
    asked.facts[COUNTRY] = "DE"
    assert matches("expression", source, asked) is expected


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ({"b", "a"}, 'facts["f"] == ["a", "b"]'),
        (("a", 1), 'facts["f"][1] == 1'),
        ({"k": None}, 'facts["f"].k == null'),
        (1.5, 'facts["f"] > 1.0'),
        (True, 'facts["f"] == true'),
        (Path("/x"), 'facts["f"] == "/x"'),
    ],
)
def test_facts_of_any_type_reach_an_expression(value: Any, source: str) -> None:
    asked = exchange()
    asked.facts[Fact[Any]("f")] = value
    assert matches("expression", source, asked)


@pytest.mark.parametrize("value", [2**70, "\ud800", float("nan")])
def test_fact_that_cel_cannot_hold_does_not_match(value: Any) -> None:
    asked = exchange()
    asked.facts[Fact[Any]("f")] = value
    assert not matches("expression", 'facts["f"] == 1', asked)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("metod == 'GET'", "expression 1:1: unknown name 'metod'; did you mean 'method'?"),
        ("zzz == 1", "unknown name 'zzz'; names: method, scheme, host, path, client, query, "),
        ("geo.asn == 1", "unknown name 'geo.asn'; a fact is written facts[\"geo.asn\"]"),
        ("method == 1", "expression 1:8: '==' cannot be applied to string, int"),
        ("\n  headers[1] == ''", "expression 2:10: '[ ]' cannot be applied to "),
        ("path.split('/') == []", "expression 1:11: unknown function 'split'"),
        ("method ==", "expression 1:10: the expression ends too early"),
        ("method = 'GET'", "expression 1:8: write == to compare"),
        ("method == 'GET", "expression 1:11: cannot read \"'GET\""),
        ("method == 'GET')", "expression 1:16: ) is not expected here"),
        ("method", "expression 1:1: this gives string, not true or false"),
        ("facts['a']", "expression 1:1: this gives a value of any type, not true or false"),
        ("1 + " * 40 + "1 == 1", "expression: nested more than 32 levels deep"),
        ("path.matches('(a')", "expression 1:14: '(a' is not an RE2 pattern"),
        ("path.matches(r'(\\d')", "is not an RE2 pattern"),
        ("headers['Via'] == ''", 'names are in lower case here; write headers["via"]'),
        ("true && facts.exists(f, true)", 'expression 1:9: name the fact in quotes'),
        ("true" + " " * 5000, "4096"),
        ("", "at least 1"),
    ],
)  # fmt: skip
def test_bad_expression_is_a_fault_at_load(source: str, words: str) -> None:
    assert words in fault("expression", source)


def test_every_fault_of_an_expression_is_a_line() -> None:
    with pytest.raises(ValueError, match="metod") as caught:
        expression_test("metod == 1 ||\n pth == 2")
    assert str(caught.value).split("\n") == [
        "expression 1:1: unknown name 'metod'; did you mean 'method'?",
        "expression 2:2: unknown name 'pth'; did you mean 'path'?",
    ]


def test_fact_that_no_plugin_sets_is_a_fault() -> None:
    known = ["geo.country", "geo.region"]
    assert read("expression", 'facts["geo.country"] == "DE"', known)
    with pytest.raises(ValidationError, match=r"fact 'geo.contry'; did you mean 'geo.country'\?"):
        read("expression", 'facts["geo.contry"] == "DE"', known)


def test_failure_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 1000.0
    test = expression_test('headers["x-a"] == "1"', clock=lambda: now_s)
    with caplog.at_level(logging.WARNING, "edgeproxy.content"):
        for _ in range(5):
            assert not test(exchange())
        assert len(caplog.records) == 1
        assert "x-a" in caplog.text
        now_s += 61
        assert not test(exchange())
        assert len(caplog.records) == 2


def test_expression_that_runs_away_is_stopped() -> None:
    many = "[1,2,3,4,5,6,7,8,9,10]"
    source = "true"
    for name in "abcdefgh":
        source = f"{many}.all({name}, {source})"
    assert not matches("expression", source, exchange())


def test_missing_library_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproxy_content import expression

    expression._compiler.cache_clear()
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    with pytest.raises(ImportError) as caught:
        read("expression", "true")
    assert caught.value.name == "cel_expr_python"
    assert matches("method", "GET", exchange())  # the other keys do without


def test_expression_reads_only_what_it_names() -> None:
    names = names_in('facts["a"] == 1 && headers.via == "" && x.query == "" && path == "host"')
    assert names.variables == {"facts", "headers", "path"}
    assert names.keys == {"facts": {"a"}, "headers": {"via"}}
