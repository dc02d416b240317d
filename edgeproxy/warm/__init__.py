"""Fetching a whole site through a running edgeproxy, so that the cache has every page of it.

`command` the command line -> `crawl` what is fetched, how fast, what came of it -> `reading` what
pages, style sheets, sitemaps and robots.txt say, as pure functions.
"""

from .command import add_command

__all__ = ["add_command"]
