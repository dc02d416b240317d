"""Answer with a redirect or a fixed page, or ask the origin for another path."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from edgeproxy import api
from edgeproxy.api import (
    Body,
    Config,
    Duration,
    Exchange,
    FieldName,
    Filter,
    Headers,
    Outcome,
    Response,
    Target,
    Template,
    UpstreamError,
    editor_hint,
    fill,
    normalise_path,
)


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or value.startswith("//"):
        raise ValueError(f"{value!r} is not a path; it begins with one slash")
    return value


def _absolute_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "*" in parts.netloc:
        raise ValueError(f"{value!r} is not an absolute URL such as https://example.org/new/**")
    return value


PathPattern = Annotated[
    str, AfterValidator(_absolute_path), editor_hint("^/(?!/)", "a path begins with one slash")
]
"""A path; its wildcards stand for what those of the route's path stood for, in order."""


class Redirect(Filter):
    """Send the client elsewhere. A plain text is the path or URL."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})
    answers: ClassVar[bool] = True
    plain_keys = ("path", "url")

    path: PathPattern | None = None
    """A path on the same host; `*` and `**` are what they stood for in the route's path."""
    url: Annotated[str, AfterValidator(_absolute_url), editor_hint("^https?://")] | None = None
    """An absolute URL, for another host."""
    status: Literal[301, 302, 303, 307, 308] = 302
    """301 and 308 are for good, 302 and 307 for now; 307 and 308 keep the method."""
    query: Literal["keep", "drop"] = "keep"
    """Whether the query is handed on."""

    @classmethod
    def long_form(cls, text: str) -> Any:
        return {"path" if text.startswith("/") else "url": text}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("write exactly one of path and url")
        return self

    def admit(self, exchange: Exchange) -> Response:
        location = fill(self.path or self.url or "", exchange.captures)
        if self.path is not None:
            location = normalise_path(location, encoded_slashes=True)
        query = exchange.request.query
        if query and self.query == "keep":
            location += ("&" if "?" in location else "?") + query
        return Response(self.status, Headers.of(("location", location)))

    def outcomes(self) -> Iterable[Outcome]:
        yield Outcome(redirect=self.path or self.url, keeps_query=self.query == "keep")


class Rewrite(Filter):
    """Ask the origin for another path; the client sees no difference."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    path: PathPattern | None = None
    """This path in place of the whole; wildcards are what they stood for in the route's path."""
    prefix: PathPattern | None = None
    """Put in front of the path, after `strip_prefix`."""
    strip_prefix: PathPattern | None = None
    """Taken off the front of the path, where it is there."""

    @model_validator(mode="after")
    def _path_alone(self) -> Self:
        if (self.path is None) == (self.prefix is None and self.strip_prefix is None):
            raise ValueError("write path, or prefix and strip_prefix")
        return self

    def route(self, exchange: Exchange) -> Target | None:
        target = exchange.target
        assert target is not None
        if self.path is not None:
            return target.with_path(normalise_path(fill(self.path, exchange.captures)))
        path = target.path
        if self.strip_prefix is not None:
            strip = self.strip_prefix.rstrip("/")
            if path == strip or path.startswith(strip + "/"):
                path = path[len(strip) :] or "/"
        if self.prefix is not None:
            path = self.prefix.rstrip("/") + path
        return target.with_path(path)

    def outcomes(self) -> Iterable[Outcome]:
        yield Outcome(path=self.path, prefix=self.prefix)


class SpaFallback(Filter):
    """All addresses of a single-page application are one document. A plain text is its path.

    A navigation (GET or HEAD that takes HTML) to a path whose last segment has no dot gets `page`;
    scripts, styles and images are fetched as they are.
    """

    plain_keys = ("page",)

    page: PathPattern = "/index.html"
    """The document of the application."""

    def route(self, exchange: Exchange) -> Target | None:
        request, target = exchange.request, exchange.target
        assert target is not None
        accepts = request.headers.joined("accept") or "*/*"
        takes_html = "text/html" in accepts or "*/*" in accepts
        is_page = "." not in target.path.rpartition("/")[2]
        return target.with_path(self.page) if takes_html and is_page else None

    def outcomes(self) -> Iterable[Outcome]:
        yield Outcome(split="navigation", case="page", path=self.page)


class Page(Config):
    """A fixed page: its text, or a file that is read when the policy loads."""

    body: str = ""
    """The text of the page."""
    file: Path | None = None
    """A file with the page instead, read when the policy loads."""
    content_type: str = "text/html; charset=utf-8"
    """The media type of the page."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.file is not None and self.body:
            raise ValueError("write body or file, not both")
        if self.file is not None and not self.file.is_file():
            raise ValueError(f"there is no file {str(self.file)!r}")
        return self

    def text(self) -> bytes:
        return self.file.read_bytes() if self.file is not None else self.body.encode()


class Respond(Filter, Page):
    """A fixed answer, such as a maintenance page."""

    answers: ClassVar[bool] = True

    status: int = Field(200, ge=200, le=599)
    """The status of the answer."""
    headers: dict[FieldName, Template] = {}
    """Further fields of the answer, with `${facts}`."""
    retry_after: Duration | None = None
    """When clients may come back, for a field `Retry-After`."""

    def bind(self, plugin: object, policy: object) -> object:
        return _FixedAnswer(self, self.text())


class _FixedAnswer:
    def __init__(self, spec: Respond, body: bytes) -> None:
        self.spec, self.body = spec, body

    def admit(self, exchange: Exchange) -> Response:
        spec = self.spec
        headers = Headers.of(("content-type", spec.content_type))
        if spec.retry_after is not None:
            headers.set("retry-after", str(int(spec.retry_after)))
        for name, value in spec.headers.items():
            headers.set(name, value.render(exchange))
            if value.facts:
                exchange.varies_by.add("*")
        return Response(spec.status, headers, Body(self.body))


class ErrorPage(Filter, Page):
    """What a visitor sees when the origin fails and no stored copy can be served."""

    recovers: ClassVar[bool] = True

    status: int = Field(503, ge=400, le=599)
    """The status of the answer."""

    def bind(self, plugin: object, policy: object) -> object:
        return _Recovery(self, self.text())


class _Recovery:
    def __init__(self, spec: ErrorPage, body: bytes) -> None:
        self.spec, self.body = spec, body

    def recover(self, exchange: Exchange, error: UpstreamError) -> Response:
        headers = Headers.of(
            ("content-type", self.spec.content_type), ("cache-control", "no-store")
        )
        return Response(self.spec.status, headers, Body(self.body))


class Plugin(api.Plugin):
    repeatable = True
    filters = {
        "redirect": Redirect,
        "rewrite": Rewrite,
        "respond": Respond,
        "spa_fallback": SpaFallback,
        "error_page": ErrorPage,
    }
