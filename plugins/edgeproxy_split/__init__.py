"""A/B splits: a steady variant for each visitor."""
