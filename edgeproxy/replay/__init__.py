"""Recorded requests, decided again by a policy, and what that changes: `edgeproxy replay`.

`command` the command line -> `comparison` both sides decide each request -> `origins` answer as
they did when it was recorded -> `report` counts, examples and hit ratios, as lines and as JSON.
"""

from .command import add_command, replay
from .report import Report

__all__ = ["Report", "add_command", "replay"]
