"""Repair pages whose links name the origin: a visitor who follows them stays on the public name."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable
from typing import Any

from pydantic import model_validator

from edgeproxy import api
from edgeproxy.api import Body, BodyTooLarge, Exchange, Filter, OneOrMany, Origin, Response, Size

_TAG = re.compile(rb"<[A-Za-z][^<>]*>")


class RewriteLinks(Filter):
    """Turn links to the origin into links to the public name. `true` takes the defaults."""

    types: OneOrMany[str] = ("text/html",)
    """Media types whose tags are searched."""
    max_size: Size = "2MiB"  # type: ignore[assignment]
    """Longer pages, before or after decompression, pass as they are."""

    @property
    def max_body_bytes(self) -> int:  # type: ignore[override]
        return self.max_size

    @model_validator(mode="before")
    @classmethod
    def _from_flag(cls, value: Any) -> Any:
        return {} if value is True else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"const": True}, super().__get_pydantic_json_schema__(schema, handler)]}

    def cache_key(self, exchange: Exchange) -> Iterable[tuple[str, str]]:
        return [("public", public_url(exchange))]

    async def after_fetch(self, exchange: Exchange, response: Response) -> None:
        kind = (response.headers.get("content-type") or "").partition(";")[0].strip(" \t").lower()
        origin = exchange.origin
        if response.status not in (200, 404) or kind not in self.types or origin is None:
            return
        coding = response.headers.get("content-encoding") or "identity"
        if exchange.request.method != "GET" or coding not in ("gzip", "identity"):
            return
        try:
            stored = await response.body.read(self.max_size)
        except BodyTooLarge:
            return
        page = decompress(stored, self.max_size) if coding == "gzip" else stored
        if page is None:
            return
        changed = replace_links(page, origin, public_url(exchange))
        if changed == page:
            return
        body = gzip.compress(changed, 6, mtime=0) if coding == "gzip" else changed
        response.body = Body(body)
        response.headers.set("content-length", str(len(body)))
        response.headers.set("etag", f'W/"{hashlib.sha256(changed).hexdigest()[:24]}"')


def public_url(exchange: Exchange) -> str:
    return f"{exchange.request.scheme}://{exchange.request.authority}/"


def decompress(data: bytes, max_bytes: int) -> bytes | None:
    """The content of a gzip body; None if it is damaged or longer than `max_bytes`."""
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(data, max_bytes + 1)
    except zlib.error:
        return None
    return content if reader.eof and len(content) <= max_bytes else None


def replace_links(page: bytes, origin: Origin, public: str) -> bytes:
    """`page` with every URL of `origin` inside a tag moved to `public`. Text stays as it is."""
    host = re.escape(origin.authority.encode())
    base = re.escape(origin.base.rstrip("/").encode())
    link = re.compile(rb"(?i:(?:https?:)?//" + host + rb")" + base + rb"(?:/|(?=[\"'?#\s>]))")
    target = public.encode()

    def in_tag(tag: re.Match[bytes]) -> bytes:
        return link.sub(target, tag.group())

    return _TAG.sub(in_tag, page)


class Plugin(api.Plugin):
    repeatable = True
    filters = {"rewrite_links": RewriteLinks}
