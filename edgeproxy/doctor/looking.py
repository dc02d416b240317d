"""Seeing how things are: the only part of the doctor that touches the machine and the network."""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from ipaddress import ip_address
from pathlib import Path

from edgeproxy.claims import DataFile, Folder
from edgeproxy.doctor.holders import Holder, holder, holder_of
from edgeproxy.doctor.view import AcmeName, Asked, FolderSeen, KeyFile, Memory, Port, View
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.probe import probe
from edgeproxy.http import Headers, Origin
from edgeproxy.plan import compile_plan
from edgeproxy.policy.certificates import lifetime
from edgeproxy.policy.installed import Broken, installed
from edgeproxy.policy.policy import Policy

SHOWN = ("mitmproxy", "uvloop", "aiohttp", "cryptography", "pydantic")  # of all that is needed
MAX_FILES = 100_000  # of a folder that are counted, so that a look does not take minutes
PORTS = {"https": 443, "http": 80}
UNLIMITED = 1 << 60


async def look(policy: Policy | None, listen: Sequence[ListenAddress], *, is_online: bool) -> View:
    """How things are for `policy`, served at `listen`. Origins are asked once if `is_online`."""
    resources = [
        one for plugin in (policy.plugins if policy else ()) for one in plugin.instance.resources()
    ]
    folders = [one for one in resources if isinstance(one, Folder)] + _own_folders(policy)
    soft, hard = _descriptors()
    return View(
        now=datetime.now(UTC),
        user=_name_of(os.geteuid()),
        is_root=os.geteuid() == 0,
        python=platform.python_version(),
        packages=_packages(),
        broken_plugins=_broken_plugins(),
        descriptors=soft,
        descriptors_at_most=hard,
        memory=_memory(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        policy=policy,
        ports=tuple(_ports(listen, policy)),
        origins=tuple(await _origins(policy)) if policy is not None and is_online else (),
        folders=tuple(map(_folder, folders)),
        data_files=tuple(one for one in resources if isinstance(one, DataFile)),
        key_files=tuple(_keys(policy)),
        acme_names=tuple(await _acme_names(policy, is_online=is_online)),
    )


# ------------------------------------------------------------------- what is installed


def _packages() -> dict[str, str]:
    """Versions of the packages to show, and of all that are needed and not there, which is ''."""
    needed = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in _needed()}
    found = {name: _version(name) for name in needed}
    return {name: text for name, text in sorted(found.items()) if not text or name in SHOWN}


def _needed() -> Iterator[str]:
    """The requirements of this distribution on this system, without those of extras."""
    for line in requires("edgeproxy") or ():
        marker = line.partition(";")[2]
        if "extra ==" not in marker and "python_version" not in marker:
            yield line


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _broken_plugins() -> dict[str, str]:
    kinds = {name: plugin.load() for name, plugin in installed().items()}
    return {name: kind.reason for name, kind in kinds.items() if isinstance(kind, Broken)}


# ------------------------------------------------------------------- what the machine has


def _descriptors() -> tuple[int, int]:
    """How many this process may have open, and may ask for."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    return UNLIMITED if soft == unlimited else soft, UNLIMITED if hard == unlimited else hard


def _memory() -> Memory:
    """What the machine has, or the control group of this process where that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    with suppress(OSError):
        text = Path("/proc/meminfo").read_text()
        found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
        free = int(found[1]) * 1024 if found else total
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" is no number
        used = int((group / "memory.current").read_text())
        total, free = min(total, limit), min(free, limit - used)
    return Memory(total, free)


def _own_folders(policy: Policy | None) -> list[Folder]:
    """The folders that the policy itself names."""
    if policy is None:
        return []
    found: list[Folder] = []
    if policy.core.state.path is not None:
        found.append(Folder("state", policy.core.state.path.absolute()))
    if policy.core.record is not None:
        record = policy.core.record
        found.append(Folder("record", record.path.absolute().parent, record.max_size))
    return found


def _folder(folder: Folder) -> FolderSeen:
    path = folder.path
    exists = os.path.lexists(path)
    there = path if exists else next(one for one in path.parents if one.is_dir())
    found = there.lstat()
    room = os.statvfs(there)
    return FolderSeen(
        folder,
        exists=exists,
        is_folder=stat.S_ISDIR(found.st_mode),
        is_writable=os.access(there, os.W_OK | os.X_OK),
        owner="" if found.st_uid == os.geteuid() else _name_of(found.st_uid),
        others_write=bool(found.st_mode & 0o022),
        free_bytes=room.f_bavail * room.f_frsize,
        used_bytes=sum(_sizes(path)) if exists else 0,
    )


def _sizes(path: Path) -> Iterator[int]:
    count = 0
    for folder, _, names in os.walk(path):
        for name in names:
            count += 1
            if count > MAX_FILES:
                return
            with suppress(OSError):
                yield os.lstat(os.path.join(folder, name)).st_blocks * 512


def _keys(policy: Policy | None) -> Iterator[KeyFile]:
    tls = policy.core.tls if policy is not None else None
    for each in tls.certificates if tls is not None else ():
        yield KeyFile(each.key, bool(Path(each.key).stat().st_mode & stat.S_IROTH))


def _name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


# ------------------------------------------------------------------- where clients come in


def _ports(listen: Sequence[ListenAddress], policy: Policy | None) -> Iterator[Port]:
    for one in listen:
        use = "HTTPS" if one.tls else "HTTP"
        yield _socket(Path(one.path), use) if one.path else _port(one.host, one.port, use)
        if one.tls and not one.path and not one.is_proxied and _has_http3(policy):
            yield _port(one.host, one.port, "HTTP/3", socket.SOCK_DGRAM)
    admin = policy.core.admin if policy is not None else None
    if admin is not None:
        path = admin.socket
        yield _socket(path, "admin") if path else _port(*admin.host_and_port, "admin")


def _has_http3(policy: Policy | None) -> bool:
    tls = policy.core.tls if policy is not None else None
    return tls is not None and "h3" in tls.protocols


def _port(host: str, port: int, use: str, kind: int = socket.SOCK_STREAM) -> Port:
    """Whether it can be had: it is opened as `run` opens it, and closed again."""
    seen = Port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", use)
    try:
        found = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
    except PermissionError:
        return replace(seen, is_denied=True)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return replace(seen, trouble=error.strerror or str(error))
        return _taken(seen, holder(port))
    return seen


def _taken(seen: Port, by: Holder | None) -> Port:
    name, is_ours = (by.name, by.is_ours) if by is not None else ("", False)
    return replace(seen, is_taken=True, holder=name, is_ours=is_ours)


def _socket(path: Path, use: str) -> Port:
    """Whether a Unix socket can be made there; one that a dead process has left is no hindrance."""
    seen = Port(f"unix:{path}", use)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as sock:
            is_taken = sock.connect_ex(str(path)) == 0
            return _taken(seen, holder_of(sock)) if is_taken else seen
    if path.exists():
        return replace(seen, trouble="it is a file that is no socket")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return replace(seen, trouble=f"{path.parent} cannot be written to, or is not there")
    return seen


async def _acme_names(policy: Policy | None, *, is_online: bool) -> list[AcmeName]:
    tls = policy.core.tls if policy is not None else None
    state = policy.core.state.path if policy is not None else None
    if tls is None or tls.acme is None or state is None:
        return []
    found: list[AcmeName] = []
    for name in tls.acme.names:
        good = lifetime(tls.acme.files(state, name)[0])
        addresses = await _addresses(name) if is_online else None
        is_here = any(map(_is_here, addresses or ()))
        found.append(AcmeName(name, good[1] if good else None, addresses, is_here))
    return found


# ------------------------------------------------------------------- origins


async def _origins(policy: Policy) -> list[Asked]:
    origins = list(compile_plan(policy).origins.values())
    return [await _asked(origin) for origin in origins]


async def _asked(origin: Origin) -> Asked:
    addresses = await _addresses(origin.host, origin.connect_timeout_s)
    if not addresses:
        return Asked(origin)
    (answer,) = await probe([origin])
    response = answer.response
    asked = Asked(
        origin,
        addresses,
        is_here=any(map(_is_here, addresses)),
        status=response.status if response is not None else None,
        headers=response.headers if response is not None else Headers(),
        trouble=answer.trouble,
        took_s=answer.took_s,
        at=datetime.now(UTC),
    )
    if asked.is_pages and origin.scheme == "https" and origin.port == PORTS["https"]:
        (plain,) = await probe([replace(origin, scheme="http", port=PORTS["http"])])
        status = plain.response.status if plain.response is not None else None
        asked = replace(asked, plain_status=status)
    return asked


async def _addresses(host: str, within_s: float = 5.0) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_here(text: str) -> bool:
    """Whether an address is one of this machine's: only then can a socket be bound to it."""
    address = ip_address(text.partition("%")[0])
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((text, 0))
    except OSError:
        return False
    return True
