# Where this directory lies: from anywhere in the sandbox, enough steps up lead to its own root.
cd /proc/1/root 2>/dev/null
{{file:where.sh}}
