"""Requests that somebody has sent: recorded in flow files, HAR or access logs, read as one stream.

`visit` the data -> `logs` and `har` read two of the formats, `reading` opens files and tells the
formats apart -> `redaction` what must not get into a recording. Flow files are mitmproxy's, so that
their reader and writer are in `edgeproxy.engine.flows`, and handed in.
"""

from .reading import FlowReader, Seen, Unreadable, read
from .visit import Fetched, Recalled, Visit

__all__ = ["Fetched", "FlowReader", "Recalled", "Seen", "Unreadable", "Visit", "read"]
