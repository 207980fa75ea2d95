"""Synthetic photographs, so that a network can be trained with no data set at all: the dead-leaves model."""

from fast_nst.data.leaves.pool import Leaves, draw

__all__ = ["Leaves", "draw"]
