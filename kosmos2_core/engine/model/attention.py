"""Attention of new tokens over keys and values in the cache.

q [N, H, T, D / H], k and v [N, H, span, D / H], mask [N or 1, 1, T, span] -> as q.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kosmos2_core.engine.model.weights import Backend

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def attention_for(backend: Backend, dtype: torch.dtype) -> Attention:
    is_fast = backend == "onednn" and dtype == torch.float32
    return products_for_one if is_fast else fused_attention


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def products_for_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Where each slot has one query, two products of matrices: these take half the time of the
    CPU's fused kernel, which goes through slots and heads one by one. Keys times query is a quarter
    faster than query times keys."""
    if q.shape[2] > 1:
        return fused_attention(q, k, v, mask)
    n, heads, _, head_dim = q.shape
    hidden = mask.expand(n, heads, -1, -1).flatten(0, 1)  # [N H, 1, span]
    query = q.flatten(0, 1).transpose(1, 2)  # [N H, D / H, 1]
    scores = torch.baddbmm(hidden.transpose(1, 2), k.flatten(0, 1), query, alpha=head_dim**-0.5)
    attended = torch.bmm(scores.transpose(1, 2).softmax(-1), v.flatten(0, 1))
    return attended.view(n, heads, 1, head_dim)
