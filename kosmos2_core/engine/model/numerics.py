"""Settings of torch that the engine needs on CUDA. They hold for the whole process."""

import torch


def set_cuda_numerics(device: torch.device) -> None:
    """Turn off what is inexact or slow for the engine on CUDA. Does nothing for other devices.

    - TF32, and sums of half precision in half precision: tokens would differ from the CPU's and
      from those of other GPUs.
    - cuDNN's attention: on Hopper and later it is preferred, and builds a plan for each new shape,
      which takes up to half a second. The engine has a shape per number of rows and span.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.allow_tf32 = False
    products = torch.backends.cuda.matmul
    products.allow_tf32 = False
    products.allow_fp16_reduced_precision_reduction = False
    products.allow_bf16_reduced_precision_reduction = False
