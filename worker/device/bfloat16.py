"""Support of the processor for bfloat16."""

import torch


def has_native_bfloat16(device: torch.device) -> bool:
    """Return True for a GPU since Ampere, and for a CPU with AVX512-BF16 or AMX. Others emulate it, far slower than
    float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # ATEN_CPU_CAPABILITY may say so
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
