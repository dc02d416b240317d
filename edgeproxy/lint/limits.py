"""Rules about limits: those that what else is configured cannot keep."""

from __future__ import annotations

from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.view import View
from edgeproxy.values import as_size


@rule("process-memory-too-small", "warning")
def process_memory_too_small(view: View) -> Found:
    """What a process may keep in memory is more than it may hold, so it is replaced for nothing."""
    limit = view.policy.core.limits.process_memory
    uses = view.policy.memory_uses
    needed = sum(one.max_bytes for one in uses)
    node = view.policy.root.get("limits", "process_memory")
    if node is not None and 0 < limit < needed:
        sum_of = ", ".join(f"{one.what} {as_size(one.max_bytes)}" for one in uses)
        reason = f"without any fault a process may come to hold {as_size(needed)} ({sum_of}), and "
        reason += "would be replaced"
        yield node.place, reason, f"allow it more than {as_size(needed)}, or lower one of these"
