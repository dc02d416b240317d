"""Tests of policies, in YAML beside them: `edgeproxy test`, and what a reload asks first.

`command` the command line -> `suite` a policy with its cases -> `cases` from files to cases, in the
words of `language` and its `values` -> `visits` requests, decided by a rehearsal -> `verdicts` what
was expected, `coverage` which rules that got to -> `report` lines, JSON, JUnit XML.

`mutation` whether the tests would notice -> `mutants` policies that are a little off -> `slips` how
any model can be, `overlaps` which routes can change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeproxy.policy.installed import Registry

from .command import add_command
from .report import Report
from .schema import schema
from .suite import Suite


def run(
    policies: Sequence[Path], tests: Sequence[Path] = (), *, registry: Registry | None = None
) -> Report:
    """What comes of the tests beside `policies`, or of those in `tests`.

    The policy is read anew, with plugins of its own that are not started; no network is used.
    PolicyError for faults in either. It takes as long as the tests do, and an event loop of its
    own: from one that runs, call it by `asyncio.to_thread`.
    """
    return Suite.load(policies, tests, registry=registry).run()


__all__ = ["Report", "add_command", "run", "schema"]
