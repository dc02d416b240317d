"""The commands that ask a running edgeproxy, by its admin listener."""

from edgeproxy.remote.asking import Unanswered
from edgeproxy.remote.cache import add_commands

__all__ = ["Unanswered", "add_commands"]
