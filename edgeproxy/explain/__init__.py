"""Why a request is served as it is: the whole decision, as data and for people.

`arriving` a request that nobody sent -> `building` an explanation of what is decided about it ->
`explanation` the data -> `telling` it as a tree. `routes` is about what kept routes from matching,
`command` is the command line. `live` explains requests while they are served, to who has one of the
`tokens`, and to the admin listener, with `redaction`.
"""

from .arriving import arriving
from .building import explain, explanation
from .command import add_command
from .explanation import Explanation
from .telling import has_colours, tell

__all__ = [
    "Explanation",
    "add_command",
    "arriving",
    "explain",
    "explanation",
    "has_colours",
    "tell",
]
