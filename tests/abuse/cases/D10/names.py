"""Writes and reads files with such names."""

from tests.abuse.runner import Attack

NAMES = [
    "a\nb",
    "it's",
    '"quoted"',
    "$(touch was-run)",
    "`touch was-run`",
    "; touch was-run;",
    "-rf",
    "--help",
    "*",
    "?[a-z]",
    "{a,b}",
    " ",
    "\t",
    "a b  c",
    "~",
    "$HOME",
    "\\n",
    "%s%n",
    "#",
    "&& touch was-run",
    "né\u202e",
]


async def drive(attack: Attack) -> None:
    for number, name in enumerate(NAMES):
        # Below a directory, where no name means anything else.
        path = f"./names/{name}"
        written = await attack.call("write_file", path=path, content=f"file {number}")
        assert not written.is_error, written.text
        read = await attack.call("read_file", path=path)
        if read.structured.get("content") != f"file {number}":
            attack.red(f"{name!r} is not what was written: {read.text[:200]}")
        edited = await attack.call("edit_file", path=path, edits=[{"old": "file", "new": "done"}])
        assert not edited.is_error, edited.text
    await expect_names(attack)


async def expect_names(attack: Attack) -> None:
    listed = await attack.call("run_code", code="import os\nsorted(os.listdir('names'))")
    if listed.structured["result"] != repr(sorted(NAMES)):
        attack.red(f"the directory is not what was written: {listed.text[:600]}")
    ran = await attack.call("run_command", command="find / -name was-run 2>/dev/null | grep .")
    if ran.status == "ok":
        attack.red("a name was run")
