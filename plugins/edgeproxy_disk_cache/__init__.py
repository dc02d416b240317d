"""Keep answers on disk: a level of the cache that survives a restart."""
