"""The plugins of these tests, and what `edgeproxy check` would print for a policy."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.plan import compile_plan
from edgeproxy.policy.installed import Registry, installed
from edgeproxy.policy.load import load
from edgeproxy.policy.source import write

CANARY = "canary-in-a-variable"
ENV = {"EDGE_TOKEN": CANARY, "EMPTY": ""}

Check = Callable[[Path], tuple[str, str]]


def _plugins() -> Any:
    """The module `plugins.py` beside this file: no package to import it from."""
    name = "edgeproxy_policy_test_plugins"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("plugins.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def plugins() -> Any:
    return _plugins()


@pytest.fixture(scope="session")
def registry(plugins: Any) -> Registry:
    made: Registry = plugins.registry()
    return made


@pytest.fixture
def env() -> dict[str, str]:
    return dict(ENV)


@pytest.fixture
def check(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The faults of a policy as text, and its long form: one of them is empty.

    The policy is named as seen from its own folder. A file whose first line says `# plugins:
    first-party` is read with what is installed, all others with the plugins of these tests.
    """

    def run(path: Path) -> tuple[str, str]:
        monkeypatch.chdir(path.parent)
        first = path.read_bytes().partition(b"\n")[0] if path.is_file() else b""
        own = first == b"# plugins: first-party"
        try:
            policy = load([path.name], installed() if own else registry, env=ENV)
            compile_plan(policy)
        except PolicyError as error:
            return f"{error}\n", ""
        return "", write(policy.expanded)

    return run
