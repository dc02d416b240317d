"""The kit for tiers, where our own tests have always had it."""

from edgeproxy.testing_tiers import TierContract, entry

__all__ = ["TierContract", "entry"]
