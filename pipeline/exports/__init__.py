"""From a dataset of ours to the formats that other tools read.

An export (exporting) streams sections of a dataset (sections), here or on Ray (parallel), through
one of the formats into a destination.
"""
