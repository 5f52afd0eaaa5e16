"""Whether bfloat16 is faster than float32 here, or only emulated."""

import torch


def has_native_bfloat16(device: torch.device) -> bool:
    """True on CUDA, and on a CPU with AVX512-BF16 or AMX. Other CPUs emulate it, several times slower than float32."""
    if device.type == "cuda":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
