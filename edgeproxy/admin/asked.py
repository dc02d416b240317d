"""What the operations of the admin listener take: the parts of a path, a query or a JSON body.

The text below a field is what the OpenAPI document says of it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from edgeproxy.caching import purges
from edgeproxy.rollout.history import Text

MAX_LISTED = 10_000
MAX_FILES = 1000
MAX_WORDS = 200
MAX_NAME = 255

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Asked(BaseModel):
    """Everything that one request asks. Unknown keys are refused, and nothing is converted.

    `headers` are those of its fields that are request fields of that name.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
    headers: ClassVar[frozenset[str]] = frozenset()


class Nothing(Asked):
    """No more than the path says."""


# ---------------------------------------------------------------- the cache


class Selection(Asked):
    """Stored answers: those that match any of this."""

    urls: tuple[str, ...] = ()
    """URLs, with or without scheme and host."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of URLs, up to a slash or to the end of a path."""
    hosts: tuple[str, ...] = ()
    """Names of hosts."""
    tags: tuple[str, ...] = ()
    """Tags that rules or origins have given."""
    everything: bool = False
    """All that is stored; stands alone."""

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        if self.everything and (self.urls or self.prefixes or self.hosts or self.tags):
            raise ValueError("everything stands alone")
        self.selection()
        return self

    def selection(self) -> purges.Selection:
        return purges.Selection(
            self.urls, self.prefixes, self.hosts, self.tags, everything=self.everything
        )


class Listing(Asked):
    prefix: str = ""
    """Only URLs that begin so; one that begins with a slash counts for every host."""
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED, strict=False)] = 100
    """How many at the most."""


def _named(url: str) -> str:
    if not url:
        raise ValueError("say which: ?url=https://example.org/page")
    return url


Url = Annotated[str, AfterValidator(_named)]


class Stored(Asked):
    url: Url
    """The URL, with or without scheme and host."""


class Wondered(Asked):
    url: Url
    """The whole URL."""
    header: list[str] = []
    """A field that the request has, as `NAME: VALUE`; may be given several times."""


# ---------------------------------------------------------------- policies


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("is one line of text")
    return text


Words = Annotated[str, Field(max_length=MAX_WORDS), AfterValidator(_one_line)]


class Kept(Asked):
    version: str | None = None
    """The number or the version of a policy that was in force; the one in force if absent."""


class Change(Asked):
    """A change of policies, and what the history says of it."""

    by: Words = "admin"
    """Who wants it."""
    why: Words = ""
    """What for."""


class Rollback(Change):
    version: str = ""
    """The number or the version of a kept policy; the last other one if absent."""


class OnTrial(Change):
    version: str = ""
    """The version of the policy on trial that is meant; whichever it is if absent."""


def _file_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("is no name for a file")
    return name


class File(Asked):
    """A file that is sent."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_file_name)]
    """What messages call it."""
    text: str
    """What is in it."""


def _different(files: tuple[File, ...]) -> tuple[File, ...]:
    if len({file.name for file in files}) < len(files):
        raise ValueError("two files have one name")
    return files


Files = Annotated[tuple[File, ...], Field(max_length=MAX_FILES), AfterValidator(_different)]


class Policy(Asked):
    """A policy, as the texts of its files, and tests that have to pass."""

    files: Files = ()
    """The files of the policy."""
    tests: Files = ()
    """The files of its tests."""

    def texts(self) -> list[Text]:
        return [(file.name, file.text) for file in self.files]

    def test_texts(self) -> list[Text]:
        return [(file.name, file.text) for file in self.tests]


class Shadow(Policy, Change):
    """A policy to be tried in shadow; without files the one on trial."""


class Canary(Policy, Change):
    """A policy to be tried on visitors; without files the one on trial."""

    percent: Annotated[float, Field(gt=0, le=100)]
    """The share of the visitors."""


# ---------------------------------------------------------------- requests, the process


class Request(Asked):
    id: str
    """The id that stands in the log and in `Edge-Explain`."""


class Explained(Asked):
    url: Url
    """The whole URL."""
    fact: list[str] = []
    """A fact that is taken as given, as `country=DE`; may be given several times."""


class Scrape(Asked):
    headers = frozenset(("accept",))
    accept: str = ""
    """OpenMetrics for who asks for it; else the text format of Prometheus."""


class LogLevel(Asked):
    level: Level
    """The least level of messages that are logged, until the next start."""
