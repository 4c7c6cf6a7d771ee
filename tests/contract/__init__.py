"""One body of tests for each port, over the fake and over the real thing."""
