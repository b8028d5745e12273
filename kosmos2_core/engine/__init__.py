"""Our own inference engine over Hugging Face weights: continuous batching, token for token.

`requests` is what goes in and comes out, `loop` the batching, `model` the forward pass, `sampling`
the choice of tokens. `requests`, `scheduler`, `shared_engine` and `vitals` import no torch.
"""
