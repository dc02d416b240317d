"""Keep answers in memory: the fastest level of the cache."""
