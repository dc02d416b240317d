"""Why a request is served as it is: the whole decision, as data and for people.

`arriving` a request that nobody sent -> `building` an explanation of what is decided about it ->
`explanation` the data -> `telling` it as a tree. `routes` is about what kept routes from matching,
`command` is the command line.
"""

from .arriving import arriving
from .building import explain, explanation
from .command import add_command
from .explanation import Explanation
from .telling import tell

__all__ = ["Explanation", "add_command", "arriving", "explain", "explanation", "tell"]
