"""The same policy as a mitmproxy script, as one would write it by hand, with a dict for a cache."""

import time
from zlib import crc32

import maxminddb
from mitmproxy import http

EU = frozenset(
    (
        "AT", "AX", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GF", "GP",
        "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV", "MF", "MQ", "MT", "NL", "PL", "PT",
        "RE", "RO", "SE", "SI", "SK", "YT",
    )
)  # fmt: skip
FRESH_S = 3600


class Edge:
    def __init__(self) -> None:
        self.database = maxminddb.open_database("@DATABASE@")
        self.cache: dict[str, tuple[float, http.Response]] = {}

    def request(self, flow: http.HTTPFlow) -> None:
        client = flow.request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        record = self.database.get(client)
        country = record["country_code"] if isinstance(record, dict) else "XX"
        kept = flow.request.cookies.get("exp")
        variant = kept if kept in ("a", "b") else "ab"[crc32(client.encode()) & 1]
        region = "/eu" if country in EU else "/world"
        flow.request.path = region + ("/b" if variant == "b" else "") + flow.request.path
        flow.metadata.update(country=country, variant=variant, is_new=variant != kept)
        until_s, stored = self.cache.get(flow.request.path, (0.0, None))
        if stored is None or until_s < time.time():
            flow.request.headers.pop("if-none-match", None)
        elif flow.request.headers.get("if-none-match") == stored.headers["etag"]:
            flow.response = http.Response.make(304, b"", {"etag": stored.headers["etag"]})
        else:
            flow.response = stored.copy()

    def response(self, flow: http.HTTPFlow) -> None:
        response, known = flow.response, flow.metadata
        assert response is not None
        if flow.request.path not in self.cache and response.status_code == 200:
            self.cache[flow.request.path] = (time.time() + FRESH_S, response.copy())
        response.headers["x-country"] = known["country"]
        response.headers["x-variant"] = known["variant"]
        response.headers["strict-transport-security"] = "max-age=63072000"
        response.headers["x-frame-options"] = "DENY"
        response.headers.pop("x-github-request-id", None)
        if known["is_new"]:
            cookie = f"exp={known['variant']}; Path=/; Max-Age=7776000; SameSite=Lax; HttpOnly"
            response.headers["set-cookie"] = cookie


addons = [Edge()]
