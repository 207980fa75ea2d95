"""Operations that are faster than torch's own, each beside its plain twin: CPU gradients, Triton, CUDA graphs."""
