"""Review of boxes by people: a sample to judge, their answers, and what follows for the scores.

A sample (sampling) becomes tasks of Label Studio (tasks). Its answers (answers) are kept as
judgements in the dataset (judgements). They give precisions (precision) and a calibration of the
score (curve).
"""
