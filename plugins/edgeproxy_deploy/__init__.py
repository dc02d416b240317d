"""Hear of publishes, and ask the origin anew."""
