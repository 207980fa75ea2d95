"""MNIST digits (LeCun, Cortes, Burges 1998) as content images: a stress test for flat backgrounds."""

import os

from PIL import Image

from fast_nst.errors import UserError


class Mnist:
    """The 60,000 training digits by index, RGB, 28x28; read from `root`, downloaded if missing.

    Raises UserError if the download fails.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        import torchvision  # slow (2 s) and needed only here

        try:
            self.digits = torchvision.datasets.MNIST(root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"data.root: {root}: MNIST is missing and cannot be downloaded ({error}); put its four "
                f"*-ubyte.gz files into {os.path.join(root, 'MNIST', 'raw')}"
            ) from None

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Image.Image:
        return self.digits[index][0].convert("RGB")
