"""Operations faster than torch's own: CPU gradients, Triton kernels, CUDA graphs. Each names its plain torch twin."""
