"""Both ways to attend give what the definition gives."""

import pytest
import torch

from kosmos2_core.engine.model.attention import attention_for, fused_attention, products_for_one
from kosmos2_core.engine.model.kv_cache import KVCache

SPAN = 32


def case(tokens):
    """q, k, v and mask as the decoder has them: three of five slots; each row sees another part."""
    torch.manual_seed(0)
    cache = KVCache(
        layers=1, slots=5, heads=2, length=48, head_dim=8, dtype=torch.float32, device="cpu"
    )
    cache.data.normal_()
    k, v = cache.read(0, 1, 3, SPAN)
    q = torch.randn(3, tokens, 2, 8).transpose(1, 2)
    positions = torch.tensor([[3], [SPAN - tokens], [17]]) + torch.arange(tokens)
    return q, k, v, cache.mask(positions, SPAN)


@pytest.mark.parametrize("attend", [fused_attention, products_for_one])
@pytest.mark.parametrize("tokens", [1, 4])
def test_attention_is_the_softmax_of_what_a_row_may_see(attend, tokens):
    q, k, v, mask = case(tokens)
    expected = (q @ k.transpose(2, 3) * 8**-0.5 + mask).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v, mask), expected, atol=1e-6, rtol=0)


def test_products_take_the_cache_as_it_lies_without_a_copy():
    _, k, v, _ = case(1)
    for held in (k, v):
        assert held.flatten(0, 1).data_ptr() == held.data_ptr()


@pytest.mark.parametrize(
    ("backend", "dtype", "expected"),
    [
        ("onednn", torch.float32, products_for_one),
        ("onednn", torch.bfloat16, fused_attention),
        ("plain", torch.float32, fused_attention),
    ],
)
def test_products_are_for_the_cpu_in_float32(backend, dtype, expected):
    assert attention_for(backend, dtype) is expected
