"""Certificates that are asked for by ACME (RFC 8555): what a policy says of them."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgeproxy.plugin import Config
from edgeproxy.policy.certificates import Files, check_certificate
from edgeproxy.policy.patterns import Host

DIRECTORIES = {
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "production": "https://acme-v02.api.letsencrypt.org/directory",
}


def _public_name(host: str) -> str:
    """A name that an authority can find by DNS."""
    if host.startswith("*."):
        raise ValueError(
            f"{host!r}: a certificate for all names below takes a challenge in DNS; name each, or "
            "have certbot get it and name its files under `certificates`"
        )
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError(f"{host!r} is an address; certificates are for names")
    if "." not in host:
        raise ValueError(f"{host!r} is no public name; write for example www.example.org")
    return host


def _directory(text: str) -> str:
    parts = urlsplit(text)
    if text not in DIRECTORIES and (parts.scheme != "https" or not parts.hostname):
        raise ValueError(f"{text!r} is not staging, production or a URL that begins with https://")
    return text


def _email(text: str) -> str:
    if not re.fullmatch(r"[!-~]+@[!-~]+", text) or "," in text:
        raise ValueError(f"{text!r} is not an address such as you@example.org")
    return text


def _agreed(is_agreed: bool) -> bool:
    if not is_agreed:
        raise ValueError("the authority gives certificates only to who agrees to its terms")
    return is_agreed


class AcmeConfig(Config):
    """Certificates from an authority that speaks ACME, such as Let's Encrypt."""

    names: tuple[Annotated[Host, AfterValidator(_public_name)], ...] = Field(
        min_length=1, max_length=100
    )
    """The names; each gets a certificate of its own."""
    agree_terms: Annotated[bool, AfterValidator(_agreed)]
    """`true`: you agree to the terms of service of the authority."""
    directory: Annotated[str, AfterValidator(_directory)] = "staging"
    """`staging`, `production` (both of Let's Encrypt), or the URL of another directory."""
    email: Annotated[str, AfterValidator(_email)] | None = None
    """Where the authority may write to."""
    challenge: Literal["http-01", "tls-alpn-01"] = "http-01"
    """How a name is proved: by HTTP on port 80, or by TLS on port 443."""
    ca_file: Annotated[str, AfterValidator(check_certificate)] | None = None
    """A PEM file with an authority to trust for the directory, in place of the system's."""

    @model_validator(mode="after")
    def _has_library(self) -> AcmeConfig:
        if importlib.util.find_spec("acme") is None:
            raise PydanticCustomError(
                "missing_extra",
                "tls.acme needs acme, which is not installed; run: pip install 'edgeproxy[acme]'",
            )
        return self

    @property
    def url(self) -> str:
        """Of the directory."""
        return DIRECTORIES.get(self.directory, self.directory)

    def folder(self, state: Path) -> Path:
        """Where all is that has to do with the directory, in the folder of a policy's state: an
        account and certificates count with one authority alone."""
        label = self.directory
        if label not in DIRECTORIES:
            label = re.sub(r"[^a-z0-9.-]+", "_", label.lower().removeprefix("https://")).strip("_")
        return state / "acme" / label

    def files(self, state: Path, name: str) -> Files:
        """The certificate for `name`: one file with its key, so that they are replaced as one."""
        file = str(self.folder(state) / "certificates" / f"{name}.pem")
        return file, file
