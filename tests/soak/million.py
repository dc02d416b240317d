"""How long a disk cache of many objects takes to open (`make soak-open`).

The entries are written as the store writes them, many to a transaction, into a folder that is
removed afterwards. Then a process of its own opens it: what counts is the time until an entry has
been found.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from edgeproxy.api import Headers, StoredResponse  # noqa: E402
from edgeproxy_disk_cache.encoding import digest_of, head_of, name_of  # noqa: E402
from edgeproxy_disk_cache.store import _PUT, Store  # noqa: E402
from tests.soak.progress import Progress  # noqa: E402

OPEN = """
import sys, time
from pathlib import Path
from edgeproxy_disk_cache.store import Store

started_s = time.perf_counter()
store = Store(Path(sys.argv[1]), 10 * 2**40, picky=True)
store.open()
opened_s = time.perf_counter()
assert store.load("id-77") is not None
found_s = time.perf_counter()
costs = []
for number in range(0, int(sys.argv[2]), max(1, int(sys.argv[2]) // 2000)):
    before_s = time.perf_counter()
    assert store.load(f"id-{number}") is not None
    costs.append(time.perf_counter() - before_s)
costs.sort()
print(f"open {1000 * (opened_s - started_s):.1f} ms, "
      f"first entry {1000 * (found_s - opened_s):.1f} ms, "
      f"then an entry in {1e6 * costs[len(costs) // 2]:.0f} us (median), "
      f"{1e6 * costs[len(costs) * 99 // 100]:.0f} us (99 %); "
      f"{store.stats['objects']} objects, {store.stats['bytes'] / 2**30:.2f} GiB")
started_s = time.perf_counter()
store.close()
print(f"close {1000 * (time.perf_counter() - started_s):.1f} ms")
"""


def entry(number: int) -> StoredResponse:
    return StoredResponse(
        key=f"site https://www.example.org/page-{number}",
        status=200,
        headers=Headers.of(("Content-Type", "text/html"), ("ETag", f'"{number:x}"')),
        body=b"<p>%d</p>" % number * 40,
        stored_at_s=1.8e9,
        requested_at_s=1.8e9,
        fresh_for_s=600,
        url=f"www.example.org/page-{number}",
    )


def fill(folder: Path, count: int) -> None:
    store = Store(folder, 10 * 2**40)
    store.open()
    index = store._index
    assert index is not None
    progress, started_s = Progress(), time.monotonic()
    for start in range(0, count, 5000):
        rows = []
        for number in range(start, min(count, start + 5000)):
            one, name = entry(number), name_of(f"id-{number}")
            head, body = head_of(one), one.body
            assert isinstance(body, bytes)
            digest = digest_of(name, head, body)
            rows.append((name, 1_800_000_000_000 + number, 900, digest, None, head, body))
        with index.transaction() as connection:
            connection.executemany(_PUT, rows)
        took_s = time.monotonic() - started_s
        progress.tell(f"{start + len(rows):9,} of {count:,} written, {took_s:.0f} s")
    progress.end()
    store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write; there must be 1.5 GB")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edgeproxy-open-", dir=options.folder))
    try:
        fill(folder / "cache", options.objects)
        path = f"{ROOT}:{ROOT / 'plugins'}"
        for turn in ("first", "second"):
            command = [sys.executable, "-c", OPEN, str(folder / "cache"), str(options.objects)]
            done = subprocess.run(
                command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
            )
            print(f"{turn} time: {done.stdout.strip() or done.stderr}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
