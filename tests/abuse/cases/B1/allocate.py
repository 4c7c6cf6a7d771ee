"""Takes memory, half as much again as the sandbox may have; touched, so that it counts."""

taken = [b"x" * (1 << 20) for _ in range(768)]
print("ESCAPED: has", len(taken), "MiB")
