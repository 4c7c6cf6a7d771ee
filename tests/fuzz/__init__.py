"""Fuzzing: every place where we read what somebody else has written gets thousands of things that are wrong.

A *surface* is such a place (`harness.Surface`): it makes an input of a random generator, and tries one. Case
``n`` of seed ``s`` is the same input for ever, so a failure is reproduced by what it prints::

    python -m tests.fuzz                                     # what there is
    python -m tests.fuzz --surface stdio --count 10000 --seed 1
    python -m tests.fuzz --surface stdio --seed 1 --case 4711
    python -m tests.fuzz --surface stdio --input FILE

What must hold after each case is said by the surface; for all of them: nothing raises but our own errors,
nothing hangs, nothing is logged as an error of ours, and memory, descriptors and tasks are as before at the
end. Inputs that have found something stand in ``corpus/SURFACE`` and are tried first, always.
"""
