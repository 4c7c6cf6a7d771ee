"""Starts processes until it cannot, two hundred at most: the limit is 128."""

import os
import signal

children = []
try:
    for _ in range(200):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    print("CONTAINED: after", len(children), error)
else:
    print("ESCAPED: there are", len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
