"""Random shifts of output and content."""

import torch

from fast_nst.training.jitter import jitter


def test_output_and_content_are_shifted_alike():
    picture = torch.arange(64.0 * 72).view(1, 1, 64, 72)
    offsets = set()
    for _ in range(200):
        output, content = jitter(picture, picture + 0.5, 4)
        assert output.shape == (1, 1, 60, 68)
        top, left = divmod(int(output[0, 0, 0, 0]), 72)
        assert torch.equal(output, picture[:, :, top : top + 60, left : left + 68])
        assert torch.equal(content, output + 0.5)
        offsets.add((top, left))
    assert offsets == {(top, left) for top in range(4) for left in range(4)}
    assert jitter(picture, picture, 0) == (picture, picture)


def test_given_offset_applies_to_both():
    output, content = torch.rand(2, 3, 12, 9), torch.rand(2, 3, 12, 9)
    for top in range(3):
        for left in range(3):
            cropped = jitter(output, content, 3, torch.tensor([top, left]))
            for crop, full in zip(cropped, (output, content), strict=True):
                assert torch.equal(crop, full[:, :, top : top + 9, left : left + 6])
    assert jitter(output, content, 0, torch.tensor([0, 0])) == (output, content)
