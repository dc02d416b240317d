"""What `edgeproxy run` was told to serve: policy files, and where origins really are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproxy.errors import Fault, PolicyError
from edgeproxy.plan import compile_plan
from edgeproxy.policy.files import Source, merged, read_all, sources
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.load import compose
from edgeproxy.policy.origins import with_origins
from edgeproxy.policy.policy import LoadedPlugin, Policy
from edgeproxy.policytest.cases import cases_of, find_files
from edgeproxy.policytest.suite import Suite

DEFAULT_POLICY = """\
version: 1
origins:
  site: {{url: {url}}}
cache:
  rules:
    as_the_origin_says: {{status_ttl: {{301: 60s, 404: 30s}}, stale_if_error: 7d}}
routes:
  - {{name: site, origin: site, cache: as_the_origin_says}}
"""


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """The arguments of `edgeproxy run`. What of them a policy cannot say holds for every policy
    that is put in force: `origins` replace URLs, and `needs_tls` asks for certificates."""

    paths: Sequence[Path]
    origins: Sequence[str] = ()
    needs_tls: bool = False
    registry: Registry | None = None

    def sources(self) -> list[Source]:
        """The texts as they are now. PolicyError if one cannot be read."""
        if self.paths:
            return sources(self.paths)
        url = self.origins[-1].partition("=")[2] or self.origins[-1]
        return [("--origin", DEFAULT_POLICY.format(url=json.dumps(url)))]

    def workers(self) -> int | str:
        """What `workers` says in the files, which nobody has checked yet. Raises PolicyError."""
        value = self._unchecked("workers")
        return value if isinstance(value, int | str) else 1

    def limits_memory(self) -> bool:
        """Whether they limit what a process may hold. The same."""
        return self._unchecked("limits", "process_memory") not in (None, 0)

    def _unchecked(self, *path: str) -> Any:
        """What the key at `path` holds in the files; None if it is not there."""
        found = merged(read_all(self.sources()), []).get(*path)
        return found.plain() if found is not None else None

    def tests(self) -> list[Source]:
        """The tests beside the files, as they are now. PolicyError if one cannot be read."""
        found = find_files(self.paths)
        return sources(found) if found else []

    def test(self, texts: Sequence[Source], tests: Sequence[Source]) -> None:
        """Run `tests` on the policy that `texts` make, with plugins of its own. PolicyError with
        those that fail. For a thread without a running event loop."""
        if not tests:
            return
        plan = compile_plan(compose(texts, self.registry))
        report = Suite(plan, tuple(cases_of(tests, plan))).run()
        faults = [Fault("test-failed", f"{one.test}: {one.said}", one.place)
                  for one in report.failures]  # fmt: skip
        if faults:
            raise PolicyError(faults)

    def compose(self, texts: Sequence[Source], reuse: Mapping[str, LoadedPlugin]) -> Policy:
        """The policy that `texts` make here. PolicyError with all that is wrong with them."""
        policy = compose(texts, self.registry, reuse=reuse)
        if policy.core.tls is None and self.needs_tls:
            reason = "--listen-tls needs a section 'tls' with certificates in the policy"
            raise PolicyError([Fault("missing-key", reason)])
        return with_origins(policy, self.origins) if self.paths else policy
