"""fast_nst: train and run fast neural style transfer networks (Johnson, Alahi, Fei-Fei 2016, arXiv 1603.08155)."""

__version__ = "0.1.0"
