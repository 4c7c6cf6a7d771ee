"""What reads, writes and lists files in images without python3: POSIX shell, for one exec each.

Their first argument is the path. `exec_answers` parses what they print.
"""

from __future__ import annotations

CODES = {
    100: "ENOENT",
    101: "EISDIR",
    102: "not_regular",
    103: "ELOOP",
    104: "EACCES",
    105: "ENOSPC",
    106: "changed",
    107: "ENOTDIR",
}
"""What the scripts below exit with, and what it means. Only a broken shell answers anything else."""

_CLASSIFY = """
p=$1
if [ -L "$p" ] && [ ! -e "$p" ]; then exit 103; fi
"""
READ = (
    _CLASSIFY
    + """
[ -e "$p" ] || exit 100
[ -d "$p" ] && exit 101
[ -f "$p" ] || exit 102
[ -r "$p" ] || exit 104
stat -L -c '%s %f %Y %i %s %y' "$p" || exit 104
tail -c "+$2" "$p" | head -c "$3"
"""
)
WRITE = (
    _CLASSIFY
    + """
[ -d "$p" ] && exit 101
if [ -e "$p" ]; then
  [ -f "$p" ] || exit 102
  p=$(readlink -f "$p") old=1 mode=${3:-$(stat -c %a "$p")}
else
  old=0 mode=${3:-644}
fi
d=${p%/*}
mkdir -p "${d:-/}" 2>/dev/null || exit 104
t=$d/.pocket-dock-$$.tmp
( umask 077; : > "$t" ) 2>/dev/null || exit 104
head -c "$2" > "$t"
if [ "$(wc -c < "$t")" -ne "$2" ]; then rm -f "$t"; exit 105; fi
if [ -n "$4" ] && [ "$(stat -c '%i %s %y' "$p" 2>/dev/null)" != "$4" ]; then rm -f "$t"; exit 106; fi
chmod "$mode" "$t" && mv -f "$t" "$p" || { rm -f "$t"; exit 104; }
echo "$old $2 $p"
"""
)
APPEND = (
    _CLASSIFY
    + """
[ -d "$p" ] && exit 101
if [ -e "$p" ]; then
  [ -f "$p" ] || exit 102
  [ -w "$p" ] || exit 104
  p=$(readlink -f "$p") old=1 mode=$3 size=$(stat -c %s "$p")
else
  old=0 mode=${3:-644} size=0 d=${p%/*}
  mkdir -p "${d:-/}" 2>/dev/null || exit 104
  ( umask 077; : >> "$p" ) 2>/dev/null || exit 104
fi
[ -z "$mode" ] || chmod "$mode" "$p" || exit 104
head -c "$2" >> "$p"
new=$(stat -c %s "$p")
if [ "$new" -lt $((size + $2)) ]; then
  dd if=/dev/null of="$p" bs=1 seek="$size" 2>/dev/null
  [ "$old" = 1 ] || rm -f "$p"
  exit 105
fi
echo "$old $new $p"
"""
)
LIST = (
    _CLASSIFY
    + """
[ -e "$p" ] || exit 100
[ -d "$p" ] || exit 107
cd "$p" || exit 104
n=0
for f in * .[!.]* ..?*; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  n=$((n + 1)); [ "$n" -gt "$2" ] && exit 0
  stat -c '%f %s %Y' "./$f" && printf '%s\\0' "$f"
done
exit 0
"""
)
