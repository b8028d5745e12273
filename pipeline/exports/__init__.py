"""From a dataset of ours to the formats that other tools read.

options.py      what can be asked for of an export
example.py      one annotation as all formats see it: prompt cut, score chosen, split drawn
categories.py   phrase -> class
references.py   names of images that are only referred to
destination.py  where an export goes: begun, written in the background, finished last
parts.py        numbered files of bounded size; Parquet and JSON ones
exporting.py    an export from its beginning to its end, made up of sections
sections.py     the streaming frame: a section's shards -> examples -> a format's writer
parallel.py     sections at the same time, on Ray
coverage.py     counts of what is exported; card.py puts them into the export's README
formats/        one module per format; protocol.py says what a format is
"""
