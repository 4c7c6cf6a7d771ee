"""Prints what a terminal would obey."""

import sys

sys.stdout.buffer.write(
    b"before\x1b[2J\x1b[H\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\"
    b"\x1bP1$r0m\x1b\\\x1b[21t\x9b2J\xc2\x9b2J\xc2\x9d0;x\xc2\x9c\x08\x08\rover\x1bcafter\n"
)
