"""Makes zombies until it cannot. Three hundred are more than the limit allows by far."""

import os

count = 0
try:
    while count < 10_000:
        if os.fork() == 0:
            os._exit(0)
        count += 1
        if count == 300:
            print("ESCAPED: there are", count)
            break
except OSError as error:
    print("CONTAINED: after", count, error)
