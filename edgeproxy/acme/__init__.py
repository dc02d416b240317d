"""Certificates by ACME (RFC 8555): asked for, proved, renewed before they end.

`keeper` sees what is due, by the `schedule`; `issuing` has one certificate issued, by certbot's
library; `challenges` are the proofs that an authority comes to see, on disk, so that whichever
process it meets can answer. What a policy says of all this is in `edgeproxy.policy.acme`.
"""

from edgeproxy.acme.challenges import Challenges
from edgeproxy.acme.keeper import Keeper

__all__ = ["Challenges", "Keeper"]
