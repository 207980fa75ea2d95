"""What the loss of a training step sees of a picture."""

import torch

from fast_nst.training.jitter import jitter


def test_a_training_sees_pictures_and_photographs_moved_alike():
    picture = torch.arange(64.0 * 72).view(1, 1, 64, 72)
    places = set()
    for _ in range(200):
        image, photograph = jitter(picture, picture + 0.5, 4)
        assert image.shape == (1, 1, 60, 68)
        top, left = divmod(int(image[0, 0, 0, 0]), 72)
        assert torch.equal(image, picture[:, :, top : top + 60, left : left + 68])
        assert torch.equal(photograph, image + 0.5)
        places.add((top, left))
    assert places == {(top, left) for top in range(4) for left in range(4)}
    assert jitter(picture, picture, 0) == (picture, picture)


def test_an_offset_that_is_given_is_that_of_both():
    output, content = torch.rand(2, 3, 12, 9), torch.rand(2, 3, 12, 9)
    for top in range(3):
        for left in range(3):
            found = jitter(output, content, 3, torch.tensor([top, left]))
            for moved, whole in zip(found, (output, content), strict=True):
                assert torch.equal(moved, whole[:, :, top : top + 9, left : left + 6])
    assert jitter(output, content, 0, torch.tensor([0, 0])) == (output, content)
