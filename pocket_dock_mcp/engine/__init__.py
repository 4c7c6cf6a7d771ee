"""The container engine: the port, the adapter, and how one is found."""
