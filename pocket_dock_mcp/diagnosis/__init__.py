"""What is wrong with a machine, its engine or our state, and the command that mends it.

examine        all checks, each with its deadline, and what is mended first
findings       PURE  what a check says
remedies       PURE  the commands, as far as the distribution is known
configuration  settings and versions
reach          which engines there are, which is used, and who may use it
setup          PURE  what an engine says of itself
trial          limits and isolation, tried in a real sandbox
probe          the program that tries them, inside
verdicts       PURE  what the results of the trial mean
profiles       the images that sandboxes are made of
damaged        records that cannot be read
leftovers      what dead processes have left, on the engine and on disk
host           users, monitors and disk space of this machine
"""
