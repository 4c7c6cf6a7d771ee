"""Changes a tree all the time."""

import os
import random
import shutil

while True:
    name = f"d{random.randrange(20)}"
    try:
        if random.random() < 0.1:
            shutil.rmtree(name)
        elif random.random() < 0.3:
            os.rename(name, f"d{random.randrange(20)}/{name}")
        else:
            os.makedirs(f"{name}/a/b", exist_ok=True)
            with open(f"{name}/a/{random.randrange(50)}", "w") as file:
                file.write("needle\n" * random.randrange(100))
    except OSError:
        pass
