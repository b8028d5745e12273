"""`kosmos2 check`: is the engine right and how fast is it on this machine?

`python -m kosmos2_core.check` is the same without Ray and without the packages of the command line.
"""
