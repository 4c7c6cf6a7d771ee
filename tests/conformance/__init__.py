"""The protocol's own test programs, run against our server: the conformance runner and the Inspector."""
