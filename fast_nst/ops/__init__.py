"""Operations faster than torch's own, each with its plain torch twin named: CPU gradients, Triton, CUDA graphs."""
