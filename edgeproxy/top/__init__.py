"""`edgeproxy top`: what a running edgeproxy does, in the terminal, again and again.

`figures` makes figures of two snapshots of the admin listener, `frame` a picture of them, and
`command` shows one after the other.
"""

from edgeproxy.top.command import add_command

__all__ = ["add_command"]
