"""Our own inference engine over Hugging Face weights: continuous batching, token for token.

requests.py    what goes in and comes out: Prompt, Request, Completion
weights.py     linear layers, fused and pre-packed
vision.py      pixels -> image embeddings
kv_cache.py    keys and values of every slot
places.py      new tokens, and where in the cache they go
attention.py   new tokens look at the cache
decoder.py     one forward pass for prefill, extension and decode
graphs.py      a decode step as one CUDA graph
scores.py      raw scores of a chosen token
ngrams.py      the n-gram ban
grammar.py     well-formed grounding, token by token
constraints.py ban and grammar of every slot
sampler.py     logits -> tokens
scheduler.py   which sequence has which slot; no torch
sequence.py    one answer while it grows; no torch
transfer.py    small things between host and device, without waiting
pending.py     tokens that the host has still to read
run.py         the loop over a stream of requests
engine.py      Engine: the weights made ready, and memory for the runs
vitals.py      Vitals: slots in use, prompts that wait, decode steps; no torch
sharing.py     SharedEngine: one run for callers in several threads; no torch
"""
