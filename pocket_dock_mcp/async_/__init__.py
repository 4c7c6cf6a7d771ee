"""The SDK for programs with an event loop."""
