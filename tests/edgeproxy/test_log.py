"""The access log as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

from edgeproxy.http import Exchange, Fact, Request, Response, Target
from edgeproxy.log import AccessLog, entry, set_up

COUNTRY = Fact[str]("geo.country", default="XX", log="country")
VARIANT = Fact[str]("split.applied", log="variant")
OTHER = Fact[str]("other.variant", log="variant")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def exchange(**changes: Any) -> Exchange:
    made = Exchange(Request("GET", "www.example.org", "/guide/", "token=secret"))
    made.request.headers.add("cookie", "session=secret")
    made.request.headers.add("authorization", "Bearer secret")
    made.policy, made.route, made.target = "0123456789ab", "site", Target("pages", "/guide/")
    made.cache_verdict, made.bytes_sent = "hit", 42
    made.response = Response(200)
    made.facts[COUNTRY], made.facts[VARIANT] = "FR", "hero=bold"
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_an_entry_names_all_and_no_secret() -> None:
    made = exchange()
    line = entry(made, (COUNTRY, VARIANT))
    assert {key: line[key] for key in line if key not in ("time", "duration_ms")} == {
        "method": "GET",
        "host": "www.example.org",
        "path": "/guide/",
        "status": 200,
        "bytes": 42,
        "route": "site",
        "cache": "hit",
        "origin": "pages",
        "policy": "0123456789ab",
        "request_id": made.id,
        "country": "FR",
        "variant": "hero=bold",
    }
    assert "secret" not in json.dumps(line)


def test_facts_that_share_a_key_are_joined() -> None:
    made = exchange()
    made.facts[OTHER] = "menu=short"
    assert entry(made, (VARIANT, OTHER))["variant"] == "hero=bold,menu=short"


def test_a_request_that_got_nowhere_has_a_line_too() -> None:
    line = entry(Exchange(Request("GET", "", "/"), error="why"), ())
    assert (line["status"], line["route"], line["origin"]) == (0, None, None)
    assert line["error"] == "why"


def test_json_where_it_is_no_terminal_and_text_where_it_is() -> None:
    line = entry(exchange(), (COUNTRY, VARIANT))
    stream = io.StringIO()
    AccessLog(stream).write(line)
    assert json.loads(stream.getvalue()) == line
    assert stream.getvalue().count("\n") == 1
    terminal = Terminal()
    AccessLog(terminal).write(line)
    text = terminal.getvalue()
    assert "www.example.org/guide/" in text
    assert "variant=hero=bold" in text
    assert "\033[32m200\033[0m" in text
    plain = io.StringIO()
    AccessLog(plain, "text").write(line)
    assert "\033" not in plain.getvalue()


def test_control_characters_reach_no_terminal() -> None:
    made = exchange(error="x\033[2Jy\nz")
    made.request.path = "/\033]0;title\a\n"
    for style in ("text", "json"):
        stream = Terminal()
        AccessLog(stream, style).write(entry(made, ()))
        text = stream.getvalue().replace("\033[32m", "").replace("\033[0m", "")
        assert text.count("\n") == 1
        assert not [char for char in text if char < " " and char != "\n"]


def test_a_stream_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    log = AccessLog(stream)
    stream.close()
    log.write(entry(exchange(), ()))


def test_the_programs_own_messages_go_to_one_stream() -> None:
    logger = logging.getLogger("edgeproxy")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        stream = io.StringIO()
        set_up("WARNING", io.StringIO())
        set_up("WARNING", stream)
        logging.getLogger("edgeproxy.core").warning("hello")
        logging.getLogger("edgeproxy.core").info("not this")
        assert stream.getvalue().endswith(" WARNING hello\n")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
