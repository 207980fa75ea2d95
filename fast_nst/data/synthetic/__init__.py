"""Synthetic photographs, so that a network can be trained with no data set at all: the dead-leaves model."""

from fast_nst.data.synthetic.pool import SyntheticPhotographs, draw

__all__ = ["SyntheticPhotographs", "draw"]
