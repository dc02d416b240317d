"""HTTP/2 and HTTP/3, for tests of what holds for both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from edgeproxy.engine import frames, http3_frames
from tests import http2_client, http3_client


@dataclass(frozen=True, slots=True)
class Version:
    """How to speak one of the two; `malformed` is what a stream ends with whose request is none."""

    connected: Callable[..., AbstractAsyncContextManager[Any]]
    malformed: int


VERSIONS = {
    "h2": Version(http2_client.connected, frames.Code.PROTOCOL_ERROR),
    "h3": Version(http3_client.connected, http3_frames.Code.MESSAGE_ERROR),
}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    return VERSIONS[request.param]
