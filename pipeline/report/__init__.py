"""Pages to look at a dataset with: static HTML that loads nothing.

pages.py              a template, a style and a script -> one file with a policy of its own
contact_sheet.py      which annotations are shown, and where their images are; cards.py: one
run_report.py         all figures of a dataset -> the page; scan.py reads the rows
figures.py            what is counted in annotations; frequent.py: phrases; shares.py: scores;
                      reasons.py: rejections
statistics.py         the same figures as data, for `kosmos2 stats`
throughput.py         images per second, from the times of the commits
rejected_images.py    what can be shown of a sample that was rejected
charts.py             numbers -> shapes
"""
