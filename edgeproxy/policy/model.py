"""The policy language: what may stand in a file, with types and defaults.

Plugins add sections, match keys and filters; `edgeproxy.policy.load` joins them to these models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgeproxy.plugin import Config
from edgeproxy.policy.acme import AcmeConfig
from edgeproxy.policy.certificates import (
    Certificate,
    Files,
    ServerNames,
    check_certificate,
    check_key,
    load_pair,
)
from edgeproxy.policy.patterns import Host, Network, OriginUrl, PathText, Regex
from edgeproxy.values import Duration, Name, OneOrMany, OriginName, Secret, Size


class OriginConfig(Config):
    """One entry of `origins`."""

    url: OriginUrl
    """`http://` or `https://`, a host, perhaps a port and a base path."""
    kind: Literal["pages", "http"] = "pages"
    """`pages`: a static site, GET and HEAD only, nothing personal is sent; `http`: everything."""
    connect_timeout: Duration = "5s"  # type: ignore[assignment]
    """To open a connection, TLS included."""
    first_byte_timeout: Duration = "15s"  # type: ignore[assignment]
    """From the request to the head of the response."""
    idle_timeout: Duration = "30s"  # type: ignore[assignment]
    """Between two pieces of a response's body."""
    total_timeout: Duration = "5m"  # type: ignore[assignment]
    """The whole exchange."""
    max_connections: int = Field(default=64, ge=1)
    """Connections to this origin at once."""
    ca_file: str | None = None
    """A PEM file with an authority to trust besides the system's."""
    allow_private: bool = False
    """Let the host's name lead to private addresses; one that is written here itself always may."""


class Limits(Config):
    """What a client may use up. Defaults are safe for a public port."""

    head_size: Size = "32KiB"  # type: ignore[assignment]
    """Request line and header fields together; more is answered 431."""
    head_fields: int = Field(default=100, ge=1)
    """Header fields of a request; more is answered 431."""
    target_length: int = Field(default=8192, ge=64)
    """Characters of the request target; more is answered 414."""
    body_size: Size = "100MiB"  # type: ignore[assignment]
    """The body of a request; more is answered 413."""
    head_timeout: Duration = "10s"  # type: ignore[assignment]
    """From the first byte of a request to the end of its head; then 408."""
    body_timeout: Duration = "30s"  # type: ignore[assignment]
    """Between two pieces of a request's body; then 408."""
    body_rate: Size = "1KiB"  # type: ignore[assignment]
    """Bytes a second that a client must send or take, after the first timeout of either."""
    idle_timeout: Duration = "60s"  # type: ignore[assignment]
    """A connection without a request; then it is closed."""
    send_timeout: Duration = "30s"  # type: ignore[assignment]
    """For the client to take what is sent, at `body_rate`; then it is closed."""
    answer_timeout: Duration = "6m"  # type: ignore[assignment]
    """For our side to begin or go on with an answer, whatever the reason; then 504."""
    hook_timeout: Duration = "10s"  # type: ignore[assignment]
    """One hook of a plugin that waits; then it counts as failed."""
    shutdown_timeout: Duration = "10s"  # type: ignore[assignment]
    """For requests under way when the proxy stops."""
    connections: int = Field(default=4096, ge=1)
    """Connections of all clients; more are answered 503 and closed."""
    connections_per_client: int = Field(default=256, ge=1)
    """Connections of one address; more are answered 503 and closed."""
    request_rate: float = Field(default=0, ge=0)
    """Requests a second of one address; more are answered 429. 0: any number."""
    request_burst: int = Field(default=100, ge=1)
    """Requests of one address that may come at once, where `request_rate` is a limit."""
    body_memory: Size = "256MiB"  # type: ignore[assignment]
    """All bodies held in memory at once."""
    process_memory: Size = 0
    """What a process may hold in all; one that has grown beyond is replaced. 0: any amount."""


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
MIN_TOKEN_LENGTH = 16


def _long_enough(what: str) -> Callable[[Secret], Secret]:
    def check(secret: Secret) -> Secret:
        if len(secret.value) < MIN_TOKEN_LENGTH:
            raise ValueError(
                f"the {what} has fewer than {MIN_TOKEN_LENGTH} characters and could be guessed; "
                "make one with: openssl rand -hex 32"
            )
        return secret

    return check


class AdminConfig(Config):
    """A second listener, for operators and their tools: health, cache, purges, reloads."""

    listen: str = "127.0.0.1:8079"
    """`HOST:PORT`, or `unix:` and the whole path of a socket."""
    token: Annotated[Secret, AfterValidator(_long_enough("token"))]
    """What every request has to show, at least 16 characters; named, never written here."""
    allow_remote: bool = False
    """Listen also on an address that other machines can reach."""

    @property
    def socket(self) -> Path | None:
        """The path of the socket, if it is one."""
        return Path(self.listen[5:]) if self.listen.startswith("unix:") else None

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @model_validator(mode="after")
    def _good_address(self) -> AdminConfig:
        if self.socket is not None:
            if not self.socket.is_absolute():
                raise ValueError("write the socket's whole path, as in unix:/run/edgeproxy.sock")
            return self
        host, colon, port = self.listen.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError(f"{self.listen!r} is not HOST:PORT, such as 127.0.0.1:8079")
        if not self.allow_remote and host.strip("[]") not in _LOOPBACK:
            raise ValueError(
                f"other machines could get to {self.listen}; listen on 127.0.0.1, or say "
                "`allow_remote: true` and keep the port behind a firewall or TLS"
            )
        return self


class CertificateConfig(Config):
    """A certificate and its key. Both files are read when the policy loads."""

    certificate: Annotated[str, AfterValidator(check_certificate)]
    """A PEM file: the certificate of the site, then those that lead to its authority."""
    key: Annotated[str, AfterValidator(check_key)]
    """A PEM file with the private key, without a passphrase."""
    _loaded: Certificate = PrivateAttr()

    @model_validator(mode="after")
    def _load(self) -> CertificateConfig:
        self._loaded = load_pair(self.certificate, self.key)
        return self

    @property
    def loaded(self) -> Certificate:
        """What the files held when the policy was loaded."""
        return self._loaded


def _as_version(value: Any) -> Any:
    """Without quotes YAML reads 1.2 as a number."""
    return str(value) if isinstance(value, float) else value


class StateConfig(Config):
    """What is kept of policies that were in force, so that one can come back."""

    path: Path | None = None
    """A folder that holds them across restarts; without it they are in memory alone."""
    versions: int = Field(default=10, ge=2, le=1000)
    """How many are kept."""


class RecordConfig(Config):
    """A recording of requests and the heads of their answers, to be replayed against policies."""

    path: Path
    """The flow file; what it holds is kept, and new requests are written behind it."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """The share of the clients whose requests are recorded, the same clients all the time."""
    max_size: Size = "1GiB"  # type: ignore[assignment]
    """Recording ends when the file has this size."""
    redact: tuple[str, ...] = ()
    """Fields and query parameters that are redacted besides those that always are."""
    keep_cookies: tuple[str, ...] = ("ep_*",)
    """Cookies whose values are recorded, as globs: those that decide what is served."""


class ExplainConfig(Config):
    """Explanations of requests while they are served: for who shows a token, and of samples."""

    key: Annotated[Secret, AfterValidator(_long_enough("key"))] | None = None
    """Signs tokens, at least 16 characters; named, never written here. Else there are none."""
    keep: int = Field(default=20, ge=1, le=1000)
    """How many explanations are kept for the admin listener."""
    sample: float = Field(default=0, ge=0, le=1)
    """The share of all requests that are explained unasked; none of them is answered quickly."""
    redact: tuple[str, ...] = ()
    """Fields that are hidden in what is kept, besides those that always are."""


def _as_alt_svc(value: str) -> str:
    """Raises ValueError if `value` is no list of alternatives (RFC 7838, section 3)."""
    if not re.fullmatch(_ALTERNATIVE + rf"(?:, ?{_ALTERNATIVE})*", value):
        raise ValueError("write alternatives as in 'h3=\":443\"; ma=86400', or false")
    return value


_ALTERNATIVE = r'[A-Za-z0-9%-]+="[A-Za-z0-9.\[\]:-]*:[0-9]{1,5}"(?:; ?[a-z]+=[0-9]+)*'


class TlsConfig(Config):
    """What listeners for HTTPS show, and what they take."""

    certificates: tuple[CertificateConfig, ...] = Field(default=(), max_length=1000)
    """Each serves the names that are in it; the first also every other name."""
    acme: AcmeConfig | None = None
    """Certificates that edgeproxy asks for and renews by itself."""
    min_version: Annotated[
        Literal["1.2", "1.3"],
        BeforeValidator(_as_version),
        WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
    ] = "1.2"
    """Older clients are turned away."""
    protocols: tuple[Literal["h3", "h2", "http/1.1"], ...] = ("h2", "http/1.1")
    """What clients may choose from, the preferred first; `h3` is over UDP, on the same port."""
    alt_svc: Annotated[str, AfterValidator(_as_alt_svc)] | Literal[False] | None = None
    """What answers tell of HTTP/3, if not the port that it is on; `false`: nothing."""

    @field_validator("protocols")
    @classmethod
    def _with_http_1_1(cls, protocols: tuple[str, ...]) -> tuple[str, ...]:
        if "http/1.1" not in protocols:
            raise ValueError(
                "http/1.1 must be among them: it is what clients speak that do not ask"
            )
        return protocols

    @model_validator(mode="after")
    def _has_some(self) -> TlsConfig:
        if not self.certificates and self.acme is None:
            raise ValueError("write certificates, acme or both")
        return self

    def server_names(self, state: Path | None) -> ServerNames:
        """The certificates, by the names that they serve; `state` is where those of ACME are."""
        loaded = [one.loaded for one in self.certificates]
        acme, files = self.acme, list[Files]()
        if acme is not None and state is not None:
            files = [acme.files(state, name) for name in acme.names]
        over_tcp = [one for one in self.protocols if one != "h3"]
        return ServerNames(loaded, self.min_version, over_tcp, files)


class BackendRef(Config):
    """A weighted origin of a route, as in the Gateway API."""

    name: OriginName
    """One of the policy's origins."""
    weight: int = Field(default=1, ge=0, le=1_000_000)
    """Its share of the visitors, against the other weights."""


class PathMatch(Config):
    """How a path matches: exactly one of the keys. A plain text is a glob."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})
    plain_keys = ("glob",)

    exact: PathText | None = None
    """This path, and no other."""
    prefix: PathText | None = None
    """This path and all below it: `/guide` is not `/guidelines`."""
    glob: PathText | None = None
    """`*` is anything within one segment, `**` anything at all; `/guide/**` is `/guide` too."""
    regex: Regex | None = None
    """An RE2 pattern that the whole path matches."""

    @model_validator(mode="after")
    def _one_key(self) -> PathMatch:
        given = [
            key for key in ("exact", "prefix", "glob", "regex") if getattr(self, key) is not None
        ]
        if len(given) != 1:
            raise ValueError("write exactly one of exact, prefix, glob, regex")
        return self


class MatchCore(Config):
    """The match keys that the index of routes knows; plugins add the rest."""

    host: OneOrMany[Host] | None = None
    """The host that was asked for; `*.example.org` is every name below."""
    path: OneOrMany[PathMatch] | None = None
    """The path that was asked for: a glob such as `/guide/**`, or a block."""


class RouteCore(Config):
    """The keys of a route that are not filters."""

    name: Name
    """Shown in the log: lower case letters, digits, `-` and `_`."""
    matches: tuple[Any, ...] = ()
    """Matches of which one has to hold; without any, every request matches."""
    origin: OriginName | None = None
    """The origin that answers; the only one, if there is one."""
    backend_refs: tuple[BackendRef, ...] = ()
    """Several origins by weight, steady for an address."""
    cache: Literal[False] | Name | None = None
    """A name from `cache.rules`; `false`: never store; absent: as the origin says."""
    websocket: bool = False
    """Let WebSockets through, to an `http` origin."""

    @model_validator(mode="after")
    def _one_origin(self) -> RouteCore:
        if self.origin and self.backend_refs:
            raise ValueError("write origin or backend_refs, not both")
        if self.backend_refs and not sum(ref.weight for ref in self.backend_refs):
            raise ValueError("all weights of backend_refs are 0")
        return self


MAX_WORKERS = 512


class PolicyCore(Config):
    """A policy of edgeproxy: which requests get which answers, and from where."""

    version: Literal[1]
    """The version of the policy language."""
    plugins: tuple[str, ...] = ()
    """Plugins of other distributions that may be used, in the order they run."""
    hosts: tuple[Host, ...] = ()
    """Names that are served: other names get `unknown_host`; without any, every name is."""
    unknown_host: Literal[421, 404] = 421
    """The status for a name that is not in `hosts`."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose `X-Forwarded-For` and `Forwarded` are believed."""
    accelerator: Literal["on", "off"] = "on"
    """Let the front answer by itself what need not wait: the same bytes at a tenth of the cost."""
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    """Processes that serve on the same ports; `auto`: as many as there are cores."""
    encoded_slashes: bool = False
    """Let `%2F` through in paths; else such a path is refused."""
    origins: dict[Name, OriginConfig] = Field(default={})
    """Where answers come from, by name."""
    limits: Limits = Limits()
    """What a client may use up."""
    admin: AdminConfig | None = None
    """A listener for operators and their tools; none without this section."""
    tls: TlsConfig | None = None
    """Certificates for `--listen-tls`."""
    state: StateConfig = StateConfig()
    """What is kept of policies that were in force."""
    explain: ExplainConfig | None = None
    """Explanations of requests while they are served; none without this section."""
    record: RecordConfig | None = None
    """A recording of requests, to be replayed; none without this section."""
    filters: tuple[Any, ...] = ()
    """Filters of every route, before its own."""
    routes: tuple[Any, ...] = ()
    """What happens to which requests: the first route that matches decides."""

    @model_validator(mode="after")
    def _keeps_account(self) -> PolicyCore:
        if self.tls is not None and self.tls.acme is not None and self.state.path is None:
            raise PydanticCustomError(
                "missing_state",
                "tls.acme keeps its account and certificates across restarts; "
                "name a folder for them: `state: {path: /var/lib/edgeproxy}`",
            )
        return self

    def server_names(self) -> ServerNames | None:
        """The certificates, by the names that they serve; None without TLS."""
        return self.tls.server_names(self.state.path) if self.tls is not None else None
