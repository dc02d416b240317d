"""A first policy for a site, from a look at it: `edgeproxy init`.

`command` the command line -> `survey` what is asked of the site, and how little -> `page` and
`findings` what its answers say, as pure functions -> `draft` the policy, written out.
"""

from .command import add_command

__all__ = ["add_command"]
