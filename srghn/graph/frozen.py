"""What evolution leaves as it is: parameters with `requires_grad=False`, and buffers.

A pretrained extractor, a fixed projection, running means: they are the network's own values to the
bit in every individual, part of the architecture's digest, and inside the served ONNX file.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from srghn.files import sha256_bytes


def evolved_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that a genome fills, in `named_parameters()` order."""
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def evolved_size(module: nn.Module) -> int:
    """Values in the flat weight vector (parameters,) of this module."""
    return sum(p.numel() for _, p in evolved_parameters(module))


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Name -> every frozen parameter and every buffer, sorted by name."""
    found = {n: p.detach() for n, p in module.named_parameters() if not p.requires_grad}
    return dict(sorted((found | dict(module.named_buffers())).items()))


def frozen_digest(module: nn.Module) -> str:
    """SHA-256, in hex, of the names, types, shapes and bytes of `frozen_tensors`; '' for none."""
    tensors = frozen_tensors(module)
    return sha256_bytes(b"".join(_bytes(tensors))) if tensors else ""


def _bytes(tensors: dict[str, Tensor]) -> Iterator[bytes]:
    for name, tensor in tensors.items():
        yield f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode()
        yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
