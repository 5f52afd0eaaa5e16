"""Code that depends on the processor: number formats, memory, kernels."""
