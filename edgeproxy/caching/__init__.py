"""HTTP caching: rules as pure functions, the tiers, and reading through them."""
