"""From a dataset of ours to the formats that other tools read.

example.py      one annotation as all formats see it: prompt cut, score chosen, split drawn
categories.py   phrase -> class
references.py   names of images that are only referred to
destination.py  where an export goes: begun, written in the background, finished last
parts.py        numbered files of bounded size; Parquet and JSON ones
formats.py      what a format is; registry.py has all of them by name
exporting.py    an export from its beginning to its end, made up of sections
sections.py     the streaming frame: a section's shards -> examples -> a format's writer
parallel.py     sections at the same time, on Ray
coverage.py     counts of what is exported; card.py puts them into the export's README
hf.py, ...      one module per format, a pure function from an example to its records each
"""
