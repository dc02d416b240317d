"""`edgeproxy cert`: certificates for development, of a local authority that its user may trust.

`authority` makes it and signs, `trust` knows the commands that have this machine trust it.
"""

from edgeproxy.devcert.command import add_command

__all__ = ["add_command"]
