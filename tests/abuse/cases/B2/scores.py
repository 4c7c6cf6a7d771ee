"""Changes scores, and compares them."""

import pathlib

for path, score in (("self", -1000), ("self", 0), ("1", 1000), ("1", -1000)):
    try:
        pathlib.Path("/proc", path, "oom_score_adj").write_text(str(score))
    except OSError as error:
        print("CONTAINED:", path, score, error)
    else:
        print("ESCAPED:", path, score)
own, first = (int(pathlib.Path("/proc", path, "oom_score_adj").read_text()) for path in ("self", "1"))
print("CONTAINED: PID 1 has" if first >= 500 else "ESCAPED: PID 1 has", first)
print("CONTAINED: this has" if own > first else "ESCAPED: this has", own)
