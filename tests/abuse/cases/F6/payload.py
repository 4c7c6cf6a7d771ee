"""Keys of the kernel: they belong to a uid of the host and are seen across containers."""

from kernel import buffer, denied, finish, text

GET_KEYRING_ID, JOIN_SESSION, SEARCH, LINK, READ = 0, 1, 10, 8, 11
THREAD, SESSION, USER, USER_SESSION = -1, -3, -4, -5

for ring, name in ((THREAD, "thread"), (SESSION, "session"), (USER, "user"), (USER_SESSION, "user session")):
    denied("keyctl", GET_KEYRING_ID, ring, 0, 0, 0, label="keyctl GET_KEYRING_ID " + name)
denied("keyctl", JOIN_SESSION, 0, 0, 0, 0, label="keyctl JOIN_SESSION_KEYRING")
denied("keyctl", SEARCH, USER, text("user"), text("pocket-dock"), 0, label="keyctl SEARCH")
denied("keyctl", READ, USER, buffer(64), 64, 0, label="keyctl READ")
denied("add_key", text("user"), text("pocket-dock"), text("x"), 1, SESSION)
denied("add_key", text("keyring"), text("pocket-dock"), 0, 0, USER, label="add_key keyring")
denied("request_key", text("user"), text("pocket-dock"), 0, USER)
finish()
