"""Does to PID 1 what would be harmless, and could be worse if it is allowed."""

import os

tried = {
    "signal": lambda: os.kill(1, 0),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 1, 10),
    "memory": lambda: os.open("/proc/1/mem", os.O_RDWR),
    "environment": lambda: os.open("/proc/1/environ", os.O_RDONLY),
    "descriptors": lambda: os.listdir("/proc/1/fd"),
    "standard output": lambda: os.open("/proc/1/fd/1", os.O_WRONLY),
    "out-of-memory score": lambda: os.open("/proc/1/oom_score_adj", os.O_WRONLY),
}
for what, attack in tried.items():
    try:
        attack()
    except OSError as error:
        print("CONTAINED:", what, error)
    else:
        print("ESCAPED:", what, "of PID 1")
