"""Carries the context of traces to origins, and begins traces (W3C Trace Context)."""
