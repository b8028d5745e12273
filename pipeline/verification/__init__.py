"""Whether an output holds what it should, and mending what can be mended.

findings.py   Defect, Finding: what can be wrong, and what to do about it
rows.py       the values of annotations: offsets, boxes, scores, lengths
commits.py    one commit: its file, its rejects, against plan and job
outputs.py    the whole output: `verify`
mending.py    `mend`: deletes what nobody needs, makes bookkeeping anew
"""
