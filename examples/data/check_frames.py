"""A check for the example pipeline: frames of the agent's protocol survive being cut anywhere."""

import importlib.util
import sys

spec = importlib.util.spec_from_file_location("wire", "pocket_dock_mcp/agent/inside/wire.py")
wire = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wire)

frame = wire.encode({"op": "data", "id": 7}, b"\x00payload\xff" * 100)
for cut in range(len(frame) + 1):
    decoder = wire.Decoder()
    found = list(decoder.feed(frame[:cut])) + list(decoder.feed(frame[cut:]))
    if [(header["id"], bytes(payload)) for header, payload in found] != [(7, b"\x00payload\xff" * 100)]:
        sys.exit("cut at %d: %r" % (cut, found))
print("%d cuts" % (len(frame) + 1))
