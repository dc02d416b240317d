"""Files with secrets: nobody else can read them, and none is ever half written."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` in the place of `file`, whole or not at all. Its folder is made for this user."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        draft.rename(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
