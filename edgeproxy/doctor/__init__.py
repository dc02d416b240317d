"""`edgeproxy doctor`: whether this machine, the policy and its origins are ready to serve.

`look` sees how things are, `checks` judge what was seen: pure functions over a `View`, grouped by
what they look at. Each says in plain words what is so, why it matters and how to mend it.
"""

from edgeproxy.doctor.checks import CHECKS
from edgeproxy.doctor.command import add_command

__all__ = ["CHECKS", "add_command"]
