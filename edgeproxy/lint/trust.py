"""Rules about trust: who is believed, and what is written where many can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.view import View
from edgeproxy.policy.source import Node


@rule("trusts-everyone", "error")
def trusts_everyone(view: View) -> Found:
    """Whoever connects is believed to be a proxy, and may say whose request it is."""
    networks = view.policy.core.trusted_proxies
    node = view.policy.root.get("trusted_proxies")
    for network, item in zip(networks, node.items if node else (), strict=True):
        if network.prefixlen == 0:
            reason = (
                "every client is trusted to say in X-Forwarded-For who it is, so each chooses its "
                "own address and country"
            )
            yield item.place, reason, "list the proxies that you run, and nothing else"


_SECRET_NAMES = re.compile(
    r"(proxy-)?authorization|(x-)?(api|access|auth|app)[-_]?(key|token|secret)|x-(amz-)?security-token"
    r"|.*(password|passwd|secret)",
    re.IGNORECASE,
)
# As services write them: GitHub, GitLab, Slack, Stripe and others; AWS; JSON Web Tokens; HTTP.
_SECRET_LOOKS = re.compile(
    r"(ghp|gho|ghs|github_pat|glpat|xox[abprs]|sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"
    r"|AKIA[A-Z0-9]{16}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\..*"
    r"|(Bearer|Basic|Token) [A-Za-z0-9._~+/=-]{8,}",
)
_RANDOM = re.compile(r"[0-9a-f]{32,}|(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_+/-]{32,}={0,2}")
_MIN_LENGTH = 8


@rule("literal-secret", "warning", certain=False)
def literal_secret(view: View) -> Found:
    """Something that looks like a secret is written as it is. It is not shown."""
    for name, node in _texts("", view.policy.root):
        value = str(node.value)
        if "${" in value or name in ("url", "body", "content_type", "expression"):
            continue
        named = _SECRET_NAMES.fullmatch(name) and len(value) >= _MIN_LENGTH and " " not in value
        if named or _SECRET_LOOKS.fullmatch(value) or _RANDOM.fullmatch(value):
            reason = "this looks like a secret, and whoever reads the policy can use it"
            fix = "keep it out of policies, and make a new one, as this one has been written down"
            yield node.place, reason, fix


def _texts(key: str, node: Node) -> Iterator[tuple[str, Node]]:
    """Every text below `node`, with the key that it belongs to."""
    if isinstance(node.value, dict):
        for name, entry in node.value.items():
            # Below a header or a cookie stand conditions; they are about what has the name above.
            inner = key if name in ("exact", "prefix", "suffix", "contains") else name
            yield from _texts(inner, entry.node)
    elif isinstance(node.value, list):
        for item in node.value:
            yield from _texts(key, item)
    elif isinstance(node.value, str):
        yield key, node
