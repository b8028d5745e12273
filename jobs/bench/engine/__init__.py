"""The parts of `kosmos2 bench engine`.

model.py       a random model of the real one's proportions
workload.py    images, prompts and the lengths of their answers
sides.py       the engine and Hugging Face's generate, at the same work
ties.py        where two tokens are equally likely
floor.py       what the matrix products alone would take
kernels.py     what a decode step launches
scheduling.py  what the engine does beside the model
"""
