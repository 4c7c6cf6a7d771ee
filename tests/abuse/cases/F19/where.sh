up=../../../../../../../../../../../../../../../..
here=$(stat -c %d:%i "$up/." 2>&1)
root=$(stat -c %d:%i /)
pwd -P
if [ "$here" != "$root" ]; then echo "ESCAPED the way up from here leads to $here, and / is $root"; fi
cat "$up{{flag}}" 2>/dev/null
echo looked
