"""Synthetic photographs (the dead-leaves model), so that training needs no data set.

`photographs.py` draws them; the other modules draw the parts of a scene.
"""

from fast_nst.data.synthetic.photographs import SyntheticPhotographs, draw

__all__ = ["SyntheticPhotographs", "draw"]
