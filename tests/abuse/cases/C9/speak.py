"""Prints answers to every request that may be under way."""

import json

for number in range(100):
    print(json.dumps({"jsonrpc": "2.0", "id": number, "result": {"content": [], "forged": True}}))
print('Content-Length: 30\r\n\r\n{"jsonrpc":"2.0","id":1,"result":{}}')
