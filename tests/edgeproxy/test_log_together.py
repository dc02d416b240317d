"""Several processes write into one pipe, and no line is torn."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from contextlib import ExitStack

LINES, BYTES = 40, 20_000

WRITER = f"""
import logging, sys, threading
from edgeproxy import log
name, style = sys.argv[1:]
written = log.AccessLog(sys.stdout, style, is_shared=True)
log.set_up(stream=sys.stderr, who=name + ": ")
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
def messages():
    for number in range({LINES}):
        logging.getLogger("edgeproxy").warning("short, of %s, %d", name, number)
thread = threading.Thread(target=messages)
thread.start()
for number in range({LINES}):
    written.write({{"who": name, "number": number, "text": name * {BYTES}}})
thread.join()
"""


def test_lines_longer_than_what_a_pipe_keeps_together_stay_whole() -> None:
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):  # on Linux; each line takes many turns of both sides
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with ExitStack() as stack:
        pipe = stack.enter_context(os.fdopen(reading, "rb"))
        writers = []
        for name in "abc":
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, name, "json"],
                stdin=subprocess.PIPE,
                stdout=writing,
                stderr=writing,
            )
            writers.append(stack.enter_context(writer))
            stack.callback(writer.kill)
        os.close(writing)
        assert [pipe.readline() for _ in writers] == [b"ready\n"] * 3
        for writer in writers:  # all begin together
            assert writer.stdin is not None
            writer.stdin.close()
        lines = [line.decode() for line in pipe]
        assert [writer.wait() for writer in writers] == [0, 0, 0]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    messages = [line for line in lines if not line.startswith("{")]
    assert len(entries) == len(messages) == 3 * LINES
    assert all(entry["text"] == entry["who"] * BYTES for entry in entries)
    assert all(" WARNING " in line and ": short, of " in line for line in messages)
    for name in "abc":
        numbers = [entry["number"] for entry in entries if entry["who"] == name]
        assert numbers == list(range(LINES))
