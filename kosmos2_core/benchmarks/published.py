"""Published zero-shot figures of Kosmos-2, in percent.

Source: unilm's `kosmos-2/README.md`. Greedy decoding, with a ban of repeated trigrams.
"""

FLICKR30K = {  # Flickr30k Entities, any-box protocol: R@1, R@5, R@10
    "val": (77.8, 79.2, 79.3),
    "test": (78.7, 80.1, 80.1),
}
REFCOCO = {  # accuracy at IoU 0.5
    ("refcoco", "val"): 52.32,
    ("refcoco", "testA"): 57.42,
    ("refcoco", "testB"): 47.26,
    ("refcoco+", "val"): 45.48,
    ("refcoco+", "testA"): 50.73,
    ("refcoco+", "testB"): 42.24,
    ("refcocog", "val"): 60.57,
    ("refcocog", "test"): 61.65,
}
