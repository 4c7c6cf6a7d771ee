"""Streams of file trees: the format, what may be in them, reading a tree into one and one into a tree.

Both ends of a transfer run the same code: here, and as a program of the user in a sandbox. So the modules
that `program` packs are Python 3.8 and later, use the standard library only, and import nothing but each
other.
"""
