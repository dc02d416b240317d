"""Which policy is in force, which were before it, and which is tried: everything that changes that.

`rollout` has the operator's verbs: reload, roll back, try, promote. `files` are what edgeproxy was
told to serve, `history` the policies that were in force, `watch` tells when a file has changed.
"""

from edgeproxy.rollout.files import PolicyFiles
from edgeproxy.rollout.rollout import Refused, Rollout

__all__ = ["PolicyFiles", "Refused", "Rollout"]
