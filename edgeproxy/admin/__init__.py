"""The admin listener: what operators and their tools may see and do, on an address of its own."""

from edgeproxy.admin.admin import Admin
from edgeproxy.admin.routes import routes

__all__ = ["Admin", "routes"]
