"""Long trials: each is a script whose count is a parameter, and a test that runs it with a small one."""
