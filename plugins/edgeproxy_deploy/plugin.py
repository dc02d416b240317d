"""Hear of publishes by a webhook, so that a new page is shown at once and an old one for long."""

import json
import logging
from typing import Annotated, Any

from pydantic import AfterValidator, field_validator

from edgeproxy.api import (
    EVERYTHING,
    BodyTooLarge,
    CacheControl,
    Config,
    Exchange,
    Response,
    Secret,
    Selection,
    hookimpl,
    normalise_path,
)
from edgeproxy.api import Plugin as BasePlugin

from .signature import is_signed

MAX_BODY_BYTES = 1024 * 1024
MIN_SECRET_LENGTH = 16

log = logging.getLogger("edgeproxy")


def _path(value: str) -> str:
    if not value.startswith("/") or "?" in value or normalise_path(value) != value:
        raise ValueError(f"{value!r} is not a plain path such as /.well-known/edgeproxy/deploy")
    return value


class Deploy(Config):
    """A webhook for publishes, after which a new page is shown at once."""

    webhook: Annotated[str, AfterValidator(_path)] = "/.well-known/edgeproxy/deploy"
    """The path that answers."""
    secret: Secret
    """The secret that the webhook has at GitHub, at least 16 characters; named, never written."""
    hosts: tuple[str, ...] = ()
    """The names of the site that is published; without any, every site."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: Secret) -> Secret:
        if len(secret.value) < MIN_SECRET_LENGTH:
            raise ValueError(
                f"the secret has fewer than {MIN_SECRET_LENGTH} characters and could be guessed; "
                "make one with: openssl rand -hex 32"
            )
        return secret

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if hosts:
            Selection(hosts=hosts)
        return hosts


class Plugin(BasePlugin):
    """Answers the webhook on the public port, and marks the site stale."""

    repeatable = True
    Config = Deploy

    def __init__(self, config: Deploy) -> None:
        self.config = config
        self.cache: CacheControl | None = None
        self.site = Selection(hosts=config.hosts) if config.hosts else EVERYTHING

    @hookimpl
    def startup(self, cache: CacheControl) -> None:
        self.cache = cache

    @hookimpl
    def admit(self, exchange: Exchange) -> Any:  # awaited only if the request is for the webhook
        if exchange.request.path != self.config.webhook:
            return None
        return self.hear(exchange)

    async def hear(self, exchange: Exchange) -> Response:
        """The answer to a delivery. What is not signed gets no word about why."""
        request = exchange.request
        if request.method != "POST":
            return _say(405, "this address takes POST\n", ("allow", "POST"))
        try:
            body = await request.body.read(MAX_BODY_BYTES)
        except BodyTooLarge:
            return _say(413, "this is more than a webhook says\n")
        signatures = request.headers.get_all("x-hub-signature-256")
        if not is_signed(self.config.secret.value, body, signatures):
            log.warning("deploy: a delivery without a good signature from %s", exchange.client)
            return _say(403, "the signature is missing or wrong\n")
        kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _say(415, "choose application/json as the content type of the webhook\n")
        event = request.headers.get("x-github-event") or ""
        if not is_published(event, body):
            return _say(202, f"heard, nothing to do for {event or 'no event'}\n")
        assert self.cache is not None
        missing = await self.cache.invalidate(self.site)
        log.info("deploy: %s, the site is taken for stale", event)
        if missing:  # GitHub shows it, and a person may deliver it again
            return _say(500, f"in force, but not written down by {', '.join(missing)}\n")
        return _say(200, "the site is taken for stale\n")


def is_published(event: str, body: bytes) -> bool:
    """Whether an event says that a site has been published.

    `page_build` and `deployment_status` say so themselves; `workflow_run` only of a run that
    succeeded, as that is how a workflow of one's own publishes.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(data, dict):
        return False
    match event:
        case "page_build":
            return _says(data, "build", "status", "built")
        case "deployment_status":
            return _says(data, "deployment_status", "state", "success")
        case "workflow_run":
            is_over = data.get("action") == "completed"
            return is_over and _says(data, "workflow_run", "conclusion", "success")
    return False


def _says(data: dict[str, Any], key: str, inner: str, wanted: str) -> bool:
    block = data.get(key)
    return isinstance(block, dict) and block.get(inner) == wanted


def _say(status: int, text: str, *headers: tuple[str, str]) -> Response:
    return Response.text(status, text, ("cache-control", "no-store"), *headers)
