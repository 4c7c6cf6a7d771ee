"""A check for the example pipeline: frames of the agent's protocol survive being cut anywhere."""

import runpy
import sys

wire = runpy.run_path("pocket_dock_mcp/agent/inside/wire.py")
content = b"\x00payload\xff" * 100
frame = wire["encode"]({"op": "data", "id": 7}, content)
for cut in range(len(frame) + 1):
    decoder = wire["Decoder"]()
    found = [*decoder.feed(frame[:cut]), *decoder.feed(frame[cut:])]
    if [(header["id"], bytes(payload)) for header, payload in found] != [(7, content)]:
        sys.exit(f"cut at {cut}: {found!r}")
print(f"{len(frame) + 1} cuts")
