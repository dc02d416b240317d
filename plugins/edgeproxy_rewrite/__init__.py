"""Redirects, rewrites, fixed answers and fallbacks."""
