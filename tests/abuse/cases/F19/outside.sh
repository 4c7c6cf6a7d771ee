# Goes into the root of some process of the host.
for root in /proc/[0-9]*/root; do
    [ "$(stat -c %d:%i "$root/." 2>/dev/null)" != "$(stat -c %d:%i /)" ] && cd "$root" 2>/dev/null && break
done
{{file:where.sh}}
