"""Absolute links to the origin, turned into links to the public name."""
