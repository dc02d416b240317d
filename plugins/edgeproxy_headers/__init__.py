"""Header rules on each side of the cache."""
