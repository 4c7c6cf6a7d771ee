rm -rf --no-preserve-root /usr/bin/env 2>/dev/null
test -e /usr/bin/env && echo CONTAINED || echo ESCAPED: /usr/bin/env is gone
