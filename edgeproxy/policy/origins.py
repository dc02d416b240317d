"""Where the origins of a policy really are, as a command line says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic import ValidationError

from edgeproxy.errors import Fault, PolicyError
from edgeproxy.policy.model import OriginConfig
from edgeproxy.policy.policy import Policy


def with_origins(policy: Policy, origins: Sequence[str], elsewhere: Iterable[str] = ()) -> Policy:
    """`policy` with the URLs of origins replaced, as `--origin NAME=URL` asks. PolicyError for what
    is no URL, and for an origin that it does not have, unless that is one `elsewhere`."""
    specs = dict(policy.core.origins)
    for text in origins:
        name, equals, url = text.partition("=")
        if not equals or "/" in name:
            name, url = (next(iter(specs), ""), text) if len(specs) == 1 else ("", text)
        if name in elsewhere and name not in specs:
            continue
        if name not in specs:
            known = ", ".join(specs)
            raise PolicyError(
                [Fault("unknown-origin", f"--origin {text}: write NAME=URL; origins: {known}")]
            )
        try:
            OriginConfig(url=url)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise PolicyError([Fault("bad-value", f"--origin {text}: {reason}")]) from None
        specs[name] = specs[name].model_copy(update={"url": url})
    return replace(policy, core=policy.core.model_copy(update={"origins": specs}))
