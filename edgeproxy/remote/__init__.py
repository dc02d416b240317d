"""The commands that ask a running edgeproxy, by its admin listener."""

from typing import Any

from edgeproxy.remote import cache, policy, requests
from edgeproxy.remote.asking import Unanswered


def add_commands(commands: Any) -> None:
    """`purge`, `invalidate`, `cache`, `policy` and `requests`, to a set of sub-parsers."""
    cache.add_commands(commands)
    policy.add_command(commands)
    requests.add_command(commands)


__all__ = ["Unanswered", "add_commands"]
