"""The admin listener: what operators and their tools may see and do, on an address of its own."""

from edgeproxy.admin.listener import Admin

__all__ = ["Admin"]
