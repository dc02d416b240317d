import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgeproxy.plugin import Filter, Matcher, Plugin
from edgeproxy.policy.installed import Broken, Installed, Registry, installed


def distribution(folder: Path, name: str, *points: str, version: str = "1.0") -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: fast\n"
    (info / "METADATA").write_text(head)
    (info / "entry_points.txt").write_text("[edgeproxy]\n" + "\n".join(points) + "\n")
    assert PathDistribution(info).version == version


def test_plugins_are_found_through_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "Acme_Edge", "acme_hello = acme_hello_module:Plugin", version="2.5")
    (tmp_path / "acme_hello_module.py").write_text(
        "from edgeproxy.api import Plugin as Base\nclass Plugin(Base): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = installed()["acme_hello"]
    assert (entry.source, entry.is_first_party) == ("acme-edge 2.5", False)
    assert entry.extras == {"fast"}
    assert "acme_hello_module" not in sys.modules
    found = entry.load()
    assert isinstance(found, type)
    assert issubclass(found, Plugin)
    assert entry.load() is found
    monkeypatch.delitem(sys.modules, "acme_hello_module")


def test_first_of_two_copies_of_a_distribution_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path / "new", "acme", "acme_x = x:P", version="2.0")
    distribution(tmp_path / "old", "acme", "acme_x = x:P", version="1.0")
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    assert [entry.version for entry in installed().named("acme_x")] == ["2.0"]


def test_missing_module_is_told_from_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "acme", "acme_lib = acme_lib_module:P", "acme_gone = acme_gone.p:P")
    (tmp_path / "acme_lib_module.py").write_text("import no_such_library.part\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = installed()
    broken = found["acme_lib"].load()
    assert isinstance(broken, Broken)
    assert broken.missing == "no_such_library"
    gone = found["acme_gone"].load()
    assert gone == Broken("its package acme_gone is not there; install acme")


def test_own_plugins_are_first_party() -> None:
    own = [name for name, entry in installed().items() if entry.is_first_party]
    assert {"geo", "content", "split", "headers", "rewrite", "links"} <= set(own)


class Wrong(Plugin):
    Config: ClassVar[Any] = dict


class WrongMatcher(Plugin):
    matchers: ClassVar[Any] = {"x": Filter}


class WrongFilter(Plugin):
    filters: ClassVar[Any] = {"x": Matcher}


class WrongSection(Plugin):
    section = "limits.x"


class Nonsense(Plugin):
    matchers: ClassVar[Any] = 5


def raises(error: BaseException) -> Any:
    def find() -> object:
        raise error

    return find


@pytest.mark.parametrize(
    ("find", "reason"),
    [
        (lambda: Wrong, "its Config is not a pydantic model"),
        (lambda: WrongMatcher, "its match key 'x' is not a subclass of edgeproxy.api.Matcher"),
        (lambda: WrongFilter, "its filter 'x' is not a subclass of edgeproxy.api.Filter"),
        (lambda: WrongSection, "its section 'limits.x' is neither a key"),
        (lambda: Nonsense, "its class declares nonsense: AttributeError"),
        (lambda: Plugin(), "is not a subclass of edgeproxy.api.Plugin"),
        (lambda: dict, "is not a subclass of edgeproxy.api.Plugin"),
        (raises(SyntaxError("oh")), "SyntaxError: oh"),
        (raises(SystemExit(1)), "SystemExit: 1"),
        (raises(ImportError("cannot import name 'x'", name="json")), "ImportError: cannot import"),
    ],
)
def test_plugin_that_cannot_be_used_says_why(find: Any, reason: str) -> None:
    broken = Installed("x", find).load()
    assert isinstance(broken, Broken)
    assert reason in broken.reason
    assert broken.missing == ""


def test_registry_prefers_the_first_party_of_one_name() -> None:
    stranger = Installed("geo", lambda: Plugin, "stranger", "1")
    own = Installed("geo", lambda: Plugin)
    for entries in ([stranger, own], [own, stranger]):
        registry = Registry(entries)
        assert registry["geo"] is own
        assert len(registry) == 1
        assert list(registry) == ["geo"]
        assert registry.named("geo") == entries
