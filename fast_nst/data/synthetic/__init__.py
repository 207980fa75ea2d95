"""Synthetic photographs (the dead-leaves model), so that training needs no data set."""

from fast_nst.data.synthetic.pool import SyntheticPhotographs, draw

__all__ = ["SyntheticPhotographs", "draw"]
