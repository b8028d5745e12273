"""Settings of an engine on CUDA, so that its tokens are exact and new shapes are cheap."""

import pytest
import torch

from kosmos2_core.engine.model.numerics import set_cuda_numerics


def numerics():
    products = torch.backends.cuda.matmul
    return {
        "cuDNN attention": torch.backends.cuda.cudnn_sdp_enabled(),
        "TF32 of cuDNN": torch.backends.cudnn.allow_tf32,
        "TF32": products.allow_tf32,
        "float16 sums": products.allow_fp16_reduced_precision_reduction,
        "bfloat16 sums": products.allow_bf16_reduced_precision_reduction,
    }


@pytest.fixture
def all_on():
    """Everything on, which is more than torch's defaults; set back afterwards."""
    before = numerics()

    def switch(sdp, cudnn, *products):
        torch.backends.cuda.enable_cudnn_sdp(sdp)
        torch.backends.cudnn.allow_tf32 = cudnn
        matmul = torch.backends.cuda.matmul
        (
            matmul.allow_tf32,
            matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction,
        ) = products

    switch(*[True] * 5)
    yield
    switch(*before.values())


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_is_made_exact(all_on, device):
    set_cuda_numerics(torch.device(device))
    assert not any(numerics().values()), numerics()


def test_other_devices_change_nothing(all_on):
    set_cuda_numerics(torch.device("cpu"))
    assert all(numerics().values())
