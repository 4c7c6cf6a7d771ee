# Puts a probe and what it shares with others into a directory of its own, and runs it.
cd "$(mktemp -d)" || exit 9
cat >kernel.py <<'END-OF-KERNEL'
{{file:kernel.py}}
END-OF-KERNEL
cat >payload.py <<'END-OF-PAYLOAD'
{{file:payload.py}}
END-OF-PAYLOAD
exec python3 payload.py
