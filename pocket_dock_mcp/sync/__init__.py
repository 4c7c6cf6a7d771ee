"""The SDK for programs without an event loop: thin facades that block, and nothing else.

portal     one thread with an event loop, for as long as something needs it
container  Container
pool       ContainerPool
"""

from pocket_dock_mcp.sync.container import Container
from pocket_dock_mcp.sync.pool import ContainerPool

__all__ = ["Container", "ContainerPool"]
