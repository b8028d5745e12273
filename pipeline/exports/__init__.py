"""Exports of a dataset to formats that other tools read.

An export (exporting) streams sections of a dataset (sections), in this process or on Ray
(parallel), through one of the formats into a destination.
"""
