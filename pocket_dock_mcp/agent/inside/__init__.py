"""The program that is PID 1 of every sandbox. Runs on Python 3.8+ with nothing but its standard library.

Its modules travel into the container as one command-line argument (see ``agent/bundle.py``), so any image
with a python3 works as it is. `wire` is also what the host's side of the stream is written against.
"""
