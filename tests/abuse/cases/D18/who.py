"""Says who has run a trojan."""

who = set(open("/tmp/who").read().split())
print("ESCAPED: uid 0" if "0" in who else "CONTAINED:", who)
