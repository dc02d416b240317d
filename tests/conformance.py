"""Run a checkout of the public HTTP cache suite (http-tests/cache-tests) against edgeproxy.

    make conformance SUITE=path/to/cache-tests

The suite stands outside this repository, with its npm packages installed. Its origin, the proxy and
its client are started here and stopped again; a run takes about a minute. Exits with 1 below the
floor, and with 2 if nothing could be run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.serve import Server

POLICY = Path(__file__).parent / "cases" / "conformance.yaml"
FLOOR = {"required": 158, "optimal": 94}
RUN_S = 300.0

LIST_TESTS = (
    "import all from './tests/index.mjs';"
    "console.log(JSON.stringify(all.flatMap(g => g.tests.map(t => ({group: g.id, id: t.id,"
    " kind: t.kind ?? 'required', needs: t.depends_on ?? [], browser: t.browser_only ?? false})))))"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the suite that is meant for shared caches."""

    id: str
    group: str
    kind: str  # required, optimal, check
    needs: tuple[str, ...]


Verdicts = Mapping[str, Any]
"""By test: true, or the name and message of an error."""


class CannotRun(Exception):
    """The suite or its tools are not what they should be."""


async def output_of(suite: Path, *command: str, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=suite,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CannotRun(f"{command[0]} did not end within {RUN_S:.0f} s") from None
    if process.returncode:
        raise CannotRun(f"{' '.join(command[:2])} ended with {process.returncode}")
    return printed.decode()


async def cases_of(suite: Path) -> dict[str, Case]:
    """The suite's tests by id, without those for browsers."""
    listed = json.loads(await output_of(suite, "node", "--input-type=module", "--eval", LIST_TESTS))
    return {
        test["id"]: Case(test["id"], test["group"], test["kind"], tuple(test["needs"]))
        for test in listed
        if not test["browser"]
    }


@asynccontextmanager
async def origin(suite: Path, port: int) -> AsyncIterator[None]:
    """The suite's origin, once it answers."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"npm_config_protocol": "http", "npm_config_port": str(port)}
        process = await asyncio.create_subprocess_exec(
            "node", "test-engine/server/server.mjs", cwd=suite,
            env={**os.environ, **env, "npm_config_pidfile": f"{folder}/origin.pid"},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await asyncio.to_thread(_wait_for, f"http://127.0.0.1:{port}/")
            if process.returncode is not None:
                raise CannotRun(f"the suite's origin did not start; is port {port} in use?")
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise CannotRun(f"nobody answers at {url}")


def passed(case: Case, cases: Mapping[str, Case], verdicts: Verdicts) -> bool:
    """Whether a test passed, and all that it builds on."""
    return verdicts.get(case.id) is True and all(
        need not in cases or passed(cases[need], cases, verdicts) for need in case.needs
    )


async def verdicts_of(suite: Path, url: str) -> Verdicts:
    """One run of the suite's client."""
    printed = await output_of(
        suite, "node", "--no-warnings", "test-engine/cli.mjs",
        npm_config_base=url.rstrip("/"), npm_config_id="", npm_package_config_id="",
    )  # fmt: skip
    found: Verdicts = json.loads(printed[printed.index("{") :])
    return found


def report(cases: Mapping[str, Case], good: set[str], words: Mapping[str, str]) -> bool:
    """Print the table by group and what was not passed; whether the floor was met."""
    kinds = ("required", "optimal", "check")
    all_of = Counter((case.group, case.kind) for case in cases.values())
    good_of = Counter((case.group, case.kind) for case in cases.values() if case.id in good)
    groups = list(dict.fromkeys(case.group for case in cases.values()))
    print(f"{'group':<22}" + "".join(f"{kind:>12}" for kind in kinds))
    for group in groups:
        figures = [f"{good_of[group, kind]}/{all_of[group, kind]}" for kind in kinds]
        print(f"{group:<22}" + "".join(f"{figure:>12}" for figure in figures))
    print()
    for case in cases.values():
        if case.id not in good and case.kind != "check":
            print(f"not passed ({case.kind}): {case.id}: {words[case.id]}")
    sums = {kind: sum(good_of[group, kind] for group in groups) for kind in kinds}
    totals = {kind: sum(all_of[group, kind] for group in groups) for kind in kinds}
    print(", ".join(f"{kind} {sums[kind]}/{totals[kind]}" for kind in kinds))
    return all(sums[kind] >= least for kind, least in FLOOR.items())


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", type=Path, help="a checkout of http-tests/cache-tests")
    parser.add_argument("--repeat", type=int, default=1, help="a test counts if it always passes")
    parser.add_argument("--origin-port", type=int, default=8000)
    options = parser.parse_args()
    if not (options.suite / "test-engine" / "cli.mjs").is_file():
        raise CannotRun(f"{options.suite} is no checkout of http-tests/cache-tests")
    cases = await cases_of(options.suite)
    good = set(cases)
    words: dict[str, str] = {}
    port = options.origin_port
    server = Server(
        [POLICY],
        [f"suite=http://127.0.0.1:{port}/"],
        listen=[ListenAddress("127.0.0.1")],
        access_log="off",
    )
    async with origin(options.suite, port):
        await server.start()
        try:
            for turn in range(options.repeat):
                print(f"run {turn + 1} of {options.repeat} ...", flush=True)
                verdicts = await verdicts_of(options.suite, server.urls[0])
                for case in cases.values():
                    if not passed(case, cases, verdicts):
                        good.discard(case.id)
                        verdict = verdicts.get(case.id, ["", "was not run"])
                        words[case.id] = "what it builds on" if verdict is True else verdict[1]
        finally:
            await server.stop()
    return 0 if report(cases, good, words) else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (CannotRun, OSError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        sys.exit(2)
