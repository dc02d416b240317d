"""The admin listener: what operators and their tools may see and do, on an address of its own."""

from edgeproxy.admin.admin import Admin
from edgeproxy.admin.metrics import MetricsRoutes
from edgeproxy.admin.policy import PolicyRoutes
from edgeproxy.admin.routes import app_routes, routes
from edgeproxy.admin.within import Within

__all__ = ["Admin", "MetricsRoutes", "PolicyRoutes", "Within", "app_routes", "routes"]
