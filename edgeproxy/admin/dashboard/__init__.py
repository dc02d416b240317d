"""The dashboard: what the admin listener shows in a browser, made of what it answers to anybody.

`panels` puts the answers of operations into words and shares, with rates from the `history` of the
figures and curves from `charts`; `templates/` make pages of them. `web` serves these and what lies
in `static/`. There is nothing here that counts, and nothing that a tool could not ask for as well.
"""

from edgeproxy.admin.dashboard.web import PUBLIC, Dashboard

__all__ = ["PUBLIC", "Dashboard"]
