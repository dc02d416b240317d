"""Checks of the machine: what is installed, and what there is of descriptors, memory and disk."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from edgeproxy.doctor.verdict import Judged, check, fault, ok, warning
from edgeproxy.doctor.view import FolderSeen, View
from edgeproxy.policy.model import Limits
from edgeproxy.values import as_size

SPARE_DESCRIPTORS = 128  # for files, the disk cache, sockets that listen, and what plugins open
OLD_DATA = timedelta(days=180)
VERY_OLD_DATA = timedelta(days=730)


@check("packages", "edgeproxy cannot start without the packages that it is made of")
def packages(view: View) -> Iterator[Judged]:
    missing = [name for name, version in view.packages.items() if not version]
    if missing:
        yield fault(
            f"{', '.join(missing)} cannot be found",
            "install again: pip install --force-reinstall edgeproxy",
        )
    else:
        shown = ", ".join(f"{name} {version}" for name, version in view.packages.items())
        yield ok(f"Python {view.python}; {shown}")


@check("plugin", "a policy that names it is refused")
def plugins(view: View) -> Iterator[Judged]:
    for name, reason in view.broken_plugins.items():
        yield warning(reason, "install what it needs, or remove its distribution", of=name)


@check("user", "a fault in what runs as root is a fault in the whole machine")
def user(view: View) -> Iterator[Judged]:
    if view.is_root:
        yield warning(
            "this is root, who needs no permission for what is checked below",
            "serve as a user of its own, as the unit for systemd does, and ask again as that user",
        )
    else:
        yield ok(f"this is {view.user}")


@check("descriptors", "each connection takes one; without any left, clients wait in the queue")
def descriptors(view: View) -> Iterator[Judged]:
    if not view.descriptors:
        return
    limits = view.policy.core.limits if view.policy is not None else Limits()
    origins = view.policy.core.origins.values() if view.policy is not None else ()
    of_origins = sum(origin.max_connections for origin in origins)
    needed = limits.connections + of_origins + SPARE_DESCRIPTORS
    says = f"a process may open {view.descriptors} files"
    if view.descriptors >= needed:
        yield ok(f"{says}; {needed} are enough for limits.connections")
        return
    yield warning(
        f"{says}, and limits.connections of {limits.connections} clients may take {needed}",
        f"raise it to {needed}: LimitNOFILE={needed} in the unit, or ulimit -n {needed} in the "
        f"shell (at most {view.descriptors_at_most} without root); or lower limits.connections",
    )


@check("memory", "the system ends a process that takes more than there is")
def memory(view: View) -> Iterator[Judged]:
    if view.policy is None or not view.memory.total_bytes:
        return
    uses = view.policy.memory_uses
    needed = sum(one.max_bytes for one in uses) * view.workers
    sum_of = ", ".join(f"{one.what} {as_size(one.max_bytes)}" for one in uses)
    times = f", each of {view.workers} workers" if view.workers > 1 else ""
    says = f"it may come to take {as_size(needed)} ({sum_of}{times})"
    mend = "lower cache.memory.max_size or limits.body_memory, or serve with fewer workers"
    if needed > view.memory.total_bytes:
        yield fault(f"{says}, and there are {as_size(view.memory.total_bytes)} in all", mend)
    elif needed > view.memory.free_bytes:
        yield warning(f"{says}, and {as_size(view.memory.free_bytes)} are free now", mend)
    else:
        yield ok(f"{says}; {as_size(view.memory.free_bytes)} are free")


@check("folder", "what cannot be written to disk is kept in memory alone, and lost at a restart")
def folders(view: View) -> Iterator[Judged]:
    for seen in view.folders:
        of = f"{seen.folder.path} ({seen.folder.what})"
        trouble = _trouble(seen, view.user)
        if trouble is not None:
            yield fault(*trouble, of=of)
        else:
            yield _room(seen, of)


def _trouble(seen: FolderSeen, user: str) -> tuple[str, str] | None:
    """Why nothing could be written there, and what to do."""
    path = seen.folder.path
    if not seen.is_folder:
        return "it is not a folder, or a link to one", "name a folder of its own in the policy"
    if seen.exists and seen.owner:
        mend = f"chown {user} {path}, or ask again as the user who is to serve"
        return f"it belongs to {seen.owner}, and this is {user}", mend
    if seen.exists and seen.others_write:
        return "others could write into it, so it is not used", f"chmod go-w {path}"
    if not seen.is_writable:
        what = "it" if seen.exists else "the folder above, in which it is to be created,"
        return f"{what} cannot be written to by {user}", f"create it, and chown {user} {path}"
    return None


def _room(seen: FolderSeen, of: str) -> Judged:
    free = as_size(seen.free_bytes)
    if seen.folder.max_bytes is None:
        return ok(f"it can be written to; {free} are free", of=of)
    wanted = max(0, seen.folder.max_bytes - seen.used_bytes)
    says = f"it may grow by {as_size(wanted)}, and {free} of the disk are free"
    if wanted <= seen.free_bytes:
        return ok(says, of=of)
    return warning(says, "lower its max_size, or put it on a larger disk", of=of)


@check("data", "addresses move between countries, so that visitors are taken for others")
def data_files(view: View) -> Iterator[Judged]:
    for each in view.data_files:
        of, age = f"{each.path.name} ({each.what})", view.now - each.built
        says = f"its data is {age.days} days old, of {each.built:%Y-%m-%d}"
        if age < OLD_DATA:
            yield ok(says, of=of)
        else:
            judge = warning if age < VERY_OLD_DATA else fault
            yield judge(says, "fetch a new one: see the README in geoip/, or its maker", of=of)
