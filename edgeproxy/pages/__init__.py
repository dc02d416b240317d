"""GitHub Pages on your own machine: a site answered as Pages would answer it, faults on request.

A preview for people who write sites, and the origin of edgeproxy's demo and tests. It stands
alone: nothing here imports the proxy. From the outside in:

`command` the command line -> `server` the network, counters and `Pages` -> `faults` what goes
wrong -> `cdn` the cache in front -> `answer` the rules of HTTP -> `site` which file a path means.

>>> async with Pages(Path("build")) as pages:
...     print(pages.url)
"""

from .command import add_arguments, main
from .faults import Fault
from .messages import Answer, Headers, Request
from .server import Pages

__all__ = ["Answer", "Fault", "Headers", "Pages", "Request", "add_arguments", "main"]
