"""MNIST's digits (LeCun, Cortes, Burges 1998) as content images: a stress test of flat backgrounds, and a toy."""

import os

from PIL import Image

from fast_nst.errors import UserError


class Mnist:
    """The 60,000 training digits by index, grey turned to RGB, 28x28; below `root`, downloaded there if missing.

    Raises UserError where they are neither there nor to be had.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        import torchvision  # takes two seconds, which who repaints a photograph does not need to wait

        try:
            self.digits = torchvision.datasets.MNIST(root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"data.root: {root}: MNIST is not there and cannot be downloaded here ({error}); put its four "
                f"*-ubyte.gz files into {os.path.join(root, 'MNIST', 'raw')}"
            ) from None

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Image.Image:
        return self.digits[index][0].convert("RGB")
