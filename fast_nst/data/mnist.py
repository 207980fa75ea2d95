"""MNIST digits (LeCun, Cortes, Burges 1998) as content images: shapes on a flat ground."""

import os

from PIL import Image

from fast_nst.errors import UserError


class Mnist:
    """The training digits by index, RGB, 28x28, 60,000 if they are all there; read from `root`, downloaded if missing.

    train: False for the test digits. labels: which digit each is. Raises UserError if the download fails.
    """

    def __init__(self, root: str | os.PathLike[str], train: bool = True) -> None:
        import torchvision  # slow (2 s) and needed only here

        try:
            self.digits = torchvision.datasets.MNIST(root, train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"data.root: {root}: MNIST is missing and cannot be downloaded ({error}); put its four "
                f"*-ubyte.gz files into {os.path.join(root, 'MNIST', 'raw')}"
            ) from None
        self.labels: list[int] = self.digits.targets.tolist()

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Image.Image:
        return self.digits[index][0].convert("RGB")
