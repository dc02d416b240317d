"""Languages, media types and devices: tables, and slow models that the code must agree with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.http import Headers
from edgeproxy_content import language, media
from edgeproxy_content.device import BOTS, classify, device_of

# ------------------------------------------------------------------- languages


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("DE", "de"),
        ("de-CH", "de"),
        ("de-CH-1901", "de"),
        ("de-x-private", "de"),
        ("zh-Hant-TW", "zh-Hant"),
        ("zh", "en"),  # lookup cuts ranges down, never up (RFC 4647, section 3.4)
        ("it, fr;q=0.3, de;q=0.7", "de"),
        ("fr;q=0.7, de;q=0.7", "fr"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("de-CH, de;q=0", "en"),
        ("de;q=0", "en"),
        ("en;q=0", "de"),  # the default is refused: the first that is not
        ("en;q=0, *", "de"),
        ("*", "en"),
        ("*;q=0.5, fr;q=0.1", "fr"),
        ("*;q=0", "en"),
        ("fr, *;q=0", "fr"),
        ("*;q=0, fr;q=0", "en"),
        ("nonsense_, ;;q=1, fr;q=2, fr;q=0.5x, 1, , \tde ; q=0.1", "de"),
        ("de;q=1.001", "en"),
        ("de;level=1", "en"),
        ("de;Q=0.5", "de"),
        ("de;q=0.1234", "en"),
        ("fr;q=0.9, de;q=1, fr;q=1", "de"),
        ("fr, " * 1000 + "de", "fr"),
        ("x" * 5000 + ", de", "en"),
        ("it, " * 300 + "de", "en"),  # beyond the length that is read
    ],
)
def test_negotiated_language(header: str | None, expected: str) -> None:
    assert language.negotiator(["en", "de", "fr", "zh-Hant"], "en")(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("", None), ("*", None), ("de", "de"), ("*, de;q=0.1", "de"),
        ("de;q=0", None), ("en;q=0.8, de-AT;q=0.9", "de-at"), ("de-,en", "en"),
    ],
)  # fmt: skip
def test_favourite_language(header: str | None, expected: str | None) -> None:
    assert language.favourite(header) == expected


tags = st.sampled_from(["en", "en-GB", "de", "de-CH", "de-CH-1901", "fr", "pt-BR", "a-b-c", "zh"])
ranges = st.lists(
    st.tuples(tags | st.just("*"), st.integers(0, 1000)), max_size=6, unique_by=lambda r: r[0]
)


def slow_negotiation(site: list[str], default: str, liked: list[tuple[str, int]]) -> str:
    """The rules of `language.negotiator`, said in the least clever way."""

    def refused(tag: str) -> bool:
        parts = tag.lower().split("-")
        for size in range(len(parts), 0, -1):
            for name, quality in liked:
                if name.lower().split("-") == parts[:size]:
                    return quality == 0
        return ("*", 0) in liked

    for wanted in sorted({quality for _, quality in liked if quality}, reverse=True):
        for name, quality in liked:
            if quality != wanted or name == "*":
                continue
            parts = name.lower().split("-")
            while parts:
                for tag in site:
                    if tag.lower().split("-") == parts and not refused(tag):
                        return tag
                parts.pop()
                if parts and len(parts[-1]) == 1 and len(parts) > 1:
                    parts.pop()
    return next((tag for tag in [default, *site] if not refused(tag)), default)


@given(st.lists(tags, min_size=1, max_size=5, unique=True), ranges, st.data())
def test_negotiation_agrees_with_a_slow_model(
    site: list[str], liked: list[tuple[str, int]], data: st.DataObject
) -> None:
    default = data.draw(st.sampled_from(site))
    header = ", ".join(f"{name};q={quality / 1000:.3f}" for name, quality in liked)
    expected = slow_negotiation(site, default, liked)
    assert language.negotiator(site, default)(header) == expected
    assert language.negotiator(site, default)(header.swapcase()) == expected


@given(st.text(alphabet="aAzZ09-*;,=q. \t_\xe4", max_size=80))
def test_any_header_gives_a_language_of_the_site(header: str) -> None:
    assert language.negotiator(["en", "de"], "en")(header) in ("en", "de")
    for tag, quality in language.weights(header).items():
        assert 0 <= quality <= 1
        assert tag == tag.lower()


# ------------------------------------------------------------------- media types

BROWSER = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("header", "media_type", "expected"),
    [
        (None, "text/html", False),
        ("", "text/html", False),
        ("*/*", "text/html", False),
        (BROWSER, "text/html", True),
        (BROWSER, "application/json", False),
        (BROWSER, "application/xml", False),
        (BROWSER, "image/webp", True),
        (BROWSER, "application/signed-exchange", False),
        ("image/avif,image/webp,image/*,*/*;q=0.8", "image/webp", True),
        ("image/*;q=0.8, */*;q=0.5", "image/jxl", True),
        ("application/json", "application/json", True),
        ("application/json, text/plain, */*", "application/json", True),
        ("application/json;charset=utf-8", "application/json", True),
        ("text/html, application/json", "application/json", True),
        ("text/html, application/json;q=0.9", "application/json", False),
        ("text/html;q=0.5, application/json;q=0.9", "application/json", True),
        ("text/html;q=0.5, application/json;q=0.9", "text/html", True),
        ("application/json;q=0", "application/json", False),
        ("application/json;q=0.5, */*", "application/json", False),
        ("text/*;q=0.3, text/html;q=0, text/csv;q=0.1", "text/csv", True),
        ("text/*;q=0.3, text/html;q=0", "text/html", False),
        ("text/*;q=0.3, text/html;q=0", "text/csv", True),
        ("TEXT/HTML", "text/html", True),
        ("text/html;level=1, text/html;q=0", "text/html", False),
        ('text/csv;a="x"; q=0.5', "text/csv", True),
        ("json, a/b/c, /, text/html;q=7, text/csv", "text/csv", True),
        ("a/b, " * 1000 + "text/csv", "text/csv", False),
    ],
)
def test_media_type(header: str | None, media_type: str, expected: bool) -> None:
    assert media.media_test([media_type])(header) is expected


media_ranges = st.lists(
    st.tuples(
        st.sampled_from(["text/html", "text/csv", "text/*", "image/png", "image/*", "*/*"]),
        st.integers(0, 1000),
    ),
    max_size=6,
    unique_by=lambda r: r[0],
)


@given(media_ranges, st.sampled_from(["text/html", "text/csv", "image/png", "a/b"]))
def test_media_type_agrees_with_a_slow_model(liked: list[tuple[str, int]], wanted: str) -> None:
    def best(media_type: str, least_specific: int) -> int:
        kind = media_type.split("/")[0]
        for specific, name in ((2, media_type), (1, f"{kind}/*"), (0, "*/*")):
            for each, quality in liked:
                if each == name and specific >= least_specific:
                    return quality
        return 0

    header = ",".join(f"{name};q={quality / 1000:.3f}" for name, quality in liked)
    expected = best(wanted, 1) > 0 and best(wanted, 1) >= best("text/html", 0)
    assert media.media_test([wanted])(header) is expected


@given(st.text(alphabet='az/*;,=q.01" \t', max_size=80))
def test_any_accept_is_read(header: str) -> None:
    assert media.media_test(["a/z"])(header) in (True, False)


# ------------------------------------------------------------------- devices

SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4"
CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0"


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("", "desktop"),
        ("curl/8.5.0", "desktop"),
        ("Wget/1.21", "desktop"),
        ("python-requests/2.32", "desktop"),
        (f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} Safari/537.36", "desktop"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {SAFARI} Safari/605.1.15", "desktop"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; rv:125.0) Gecko/20100101 Firefox/125", "desktop"),
        (f"Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) {CHROME} TV Safari/537.36", "desktop"),
        (f"Mozilla/5.0 (Linux; Android 9; BRAVIA 4K) {CHROME} Safari/537.36", "desktop"),
        (f"Mozilla/5.0 (iPhone; CPU OS 17_4 like Mac OS X) {SAFARI} Mobile/15E148", "mobile"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {CHROME} Mobile Safari/537.36", "mobile"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:125.0) Gecko/125.0 Firefox/125.0", "mobile"),
        (f"Mozilla/5.0 (Linux; Android 7.0; CUBOT_NOTE_S) {CHROME} Mobile Safari/537.36", "mobile"),
        ("Opera/9.80 (J2ME/MIDP; Opera Mini/9.80; U; en) Presto/2.5.25", "mobile"),
        (f"Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) {SAFARI} Mobile/15E148", "tablet"),
        (f"Mozilla/5.0 (Linux; Android 13; SM-X700) {CHROME} Safari/537.36", "tablet"),
        ("Mozilla/5.0 (Android 14; Tablet; rv:125.0) Gecko/125.0 Firefox/125.0", "tablet"),
        (f"Mozilla/5.0 (Linux; Android 9; KFMAWI) {CHROME} Silk/120.1 Safari/537.36", "tablet"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
        (f"Mozilla/5.0 (Linux; Android 6.0.1) {CHROME} Mobile (compatible; Googlebot/2.1)", "bot"),
        ("facebookexternalhit/1.1", "bot"),
        ("WhatsApp/2.23.20.0", "bot"),
        ("Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "bot"),
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", "bot"),
        ("Mozilla/5.0 (compatible; ClaudeBot/1.0)", "bot"),
        ("Mozilla/5.0 (compatible; NewThing/1.0; +https://example.org/new)", "bot"),
        ("some-bot", "bot"),
        ("SomeBot/v2", "bot"),
    ],
)  # fmt: skip
def test_device(agent: str, expected: str) -> None:
    assert classify(agent.encode()) == expected


def test_hint_makes_a_silent_client_mobile() -> None:
    assert classify(b"", says_mobile=True) == "mobile"
    assert classify(b"Mozilla/5.0 (X11; Linux x86_64)", says_mobile=True) == "mobile"
    assert classify(b"Mozilla/5.0 (iPad)", says_mobile=True) == "tablet"
    assert classify(b"Googlebot/2.1", says_mobile=True) == "bot"


@pytest.mark.parametrize("token", BOTS)
def test_every_token_makes_a_bot(token: str) -> None:
    assert classify(f"Mozilla/5.0 (compatible; {token.title()} 1.0)".encode()) == "bot"


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=600)), max_size=4))
def test_any_fields_have_a_device(fields: list[tuple[bytes, bytes]]) -> None:
    named = [(b"User-Agent", value) for _, value in fields]
    assert device_of(Headers(fields + named)) in ("desktop", "mobile", "tablet", "bot")
