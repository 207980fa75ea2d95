import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fast_nst import networks
from fast_nst.errors import UserError
from fast_nst.networks.layers import InstanceNorm
from fast_nst.ops.channels_last import pad, upsample_convolve


def test_johnson_has_the_parameters_of_pytorch_examples():
    assert sum(p.numel() for p in networks.build("johnson").parameters()) == 1_679_235


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (63, 65), (64, 64), (129, 17)])
@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "zero", "upsampling": "transposed"}, {"padding": "reflection_once", "upsampling": "transposed"}],
)
def test_output_has_the_size_of_the_input(size, options):
    x = torch.rand(2, 3, *size)
    before = x.clone()
    for network in (networks.build("johnson", filters=[4, 4, 4], **options), networks.build("slim", width=4)):
        assert network(x).shape == x.shape
        assert torch.equal(x, before)


def test_instance_norm_matches_torch():
    x = torch.randn(2, 5, 7, 9)
    ours, theirs = InstanceNorm(5), nn.InstanceNorm2d(5, affine=True)
    for p in (*ours.parameters(), *theirs.parameters()):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_gradients_match_torch(layout):
    x = torch.randn(2, 5, 7, 9, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    norm = InstanceNorm(5).double()
    for p in norm.parameters():
        nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn_like(x)
    inputs = (x, *norm.parameters())
    ours = torch.autograd.grad((norm(x) * upstream).sum(), inputs)
    theirs = torch.autograd.grad((F.group_norm(x, 5, norm.weight, norm.bias, norm.eps) * upstream).sum(), inputs)
    torch.testing.assert_close(ours, theirs)


def test_instance_norm_gradients_in_bfloat16_have_only_rounding_errors():
    norm = InstanceNorm(5)
    x, upstream = (torch.randn(2, 5, 40, 30).bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
    ours = norm(x.requires_grad_())
    gradients = torch.autograd.grad(ours, (x, *norm.parameters()), upstream)
    exact = [t.detach().double().requires_grad_() for t in (x, *norm.parameters())]
    expected = torch.autograd.grad(F.group_norm(exact[0], 5, *exact[1:], norm.eps), exact, upstream.double())
    for gradient, reference in zip(gradients, expected, strict=True):
        assert (gradient.double() - reference).norm() < 0.01 * reference.norm()


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_upsample_convolve_matches_upsampling_then_convolution(mode):
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in [(2, 3, 4, 5), (6, 3, 3, 3), (6,)])
    doubled = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (1, 1, 1, 1), mode=mode)
    ours, expected = upsample_convolve(x, weight, bias, mode), F.conv2d(doubled, weight, bias)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    gradients = (torch.autograd.grad((y * upstream).sum(), (x, weight, bias)) for y in (ours, expected))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "pixels"), [("reflect", 1), ("reflect", 4), ("replicate", 1), ("replicate", 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("more", [1, 2, 8])  # side minus `pixels`; our own code runs for at least 2 + `pixels`
def test_padding_and_its_gradient_match_torch(mode, pixels, layout, more):
    height, width = pixels + more, pixels + more + 2
    x = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 3, height + 2 * pixels, width + 2 * pixels, dtype=torch.float64)
    ours, expected = pad(x, pixels, mode), F.pad(x, (pixels,) * 4, mode=mode)
    assert torch.equal(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x) for y in (ours, expected)))


def test_reflection_once_pads_only_the_input():
    network = networks.build("johnson", filters=[4, 4, 4], padding="reflection_once").eval()
    assert network.border == 40
    assert all(block.crop == 2 and block.first.pixels == 0 for block in network.blocks)
    shapes = []
    network.blocks.register_forward_hook(lambda _, inputs, output: shapes.append((inputs[0].shape, output.shape)))
    network(torch.rand(1, 3, 64, 64))
    assert shapes == [((1, 4, 36, 36), (1, 4, 16, 16))]


def test_batch_norm_depends_on_the_batch():
    network = networks.build("johnson", filters=[4, 4, 4], norm="batch")
    x = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(network(x)[:1], network(x[:1]), atol=1e-4)
    instance = networks.build("johnson", filters=[4, 4, 4])
    torch.testing.assert_close(instance(x)[:1], instance(x[:1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "unet"}, "allowed: johnson, slim"),
        ({"norm": "layer"}, "allowed: 'instance', 'batch'"),
        ({"padding": "wrap"}, "allowed: reflection"),
        ({"upsampling": "cubic"}, "allowed: nearest"),
        ({"pixels": "yuv"}, "allowed: 'centred'"),
        ({"kernel": 4}, "allowed: odd integers"),
        ({"filters": [1, 2]}, "three positive integers"),
        ({"wings": 2}, "wings"),
    ],
)
def test_invalid_option_raises(options, message):
    with pytest.raises(UserError, match=message):
        networks.build(**{"name": "johnson", **options})


@pytest.mark.parametrize("pixels", ["centred", "rgb255", "unit", "caffe"])
def test_decode_reaches_black_and_white(pixels):
    from fast_nst.networks.layers import decode

    low, high = (decode(torch.full((1, 3, 1, 1), v), pixels) for v in (-1e4, 1e4))
    assert low.max() <= 0
    assert high.min() > 0.99  # 254 of 255 in blue, with the Lua code's constants


def test_caffe_pixels_are_bgr_minus_mean():
    from fast_nst.networks.layers import encode

    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    torch.testing.assert_close(encode(red, "caffe").flatten(), torch.tensor([-103.939, -116.779, 255 - 123.68]))


def test_slim_repeats_its_noise_and_crops_its_margin():
    network = networks.build("slim", width=4).eval()
    x = torch.rand(1, 3, 40, 300)
    assert torch.equal(network(x), network(x))
    assert network(x).shape == x.shape
    # The margin equals reflecting, running the network and cropping by hand.
    bare = networks.build("slim", width=4, margin=0, noise=0.0).eval()
    ours = networks.build("slim", width=4, margin=16, noise=0.0).eval()
    bare.load_state_dict(ours.state_dict())
    by_hand = bare(F.pad(x, (16, 16, 16, 16), mode="reflect"))[:, :, 16:-16, 16:-16]
    torch.testing.assert_close(ours(x), by_hand)
    with pytest.raises(UserError, match="margin: got 6"):
        networks.build("slim", margin=6)


def test_slim_noise_is_periodic_and_breaks_the_symmetry_of_flat_regions():
    from fast_nst.networks.slim import noise_tile

    noise = noise_tile(4, 64)
    assert noise.shape == (1, 4, 64, 64)
    torch.testing.assert_close(noise.std((2, 3)), torch.ones(1, 4), rtol=0.01, atol=0)
    for k, channel in enumerate(noise[0]):
        inner = channel.diff(dim=1).square().mean().sqrt()
        seam = (channel[:, 0] - channel[:, -1]).square().mean().sqrt()
        assert seam < 1.5 * inner  # as smooth across the tile's border as inside
        assert inner < 1.5 * 2 ** (0.5 - k)  # the higher the octave, the larger the shapes
    network = networks.build("slim", width=4).eval()
    features = torch.randn(1, 8, 20, 300)  # wider than the tile
    tile = network.scatter.tile.roll(-250, 2).repeat(1, 1, 1, 2)[:, :, :20, :300]
    added = F.conv2d(tile, network.scatter.weight)
    torch.testing.assert_close(network.scatter(features, top=250), features + added)
    flat = torch.full((1, 3, 128, 128), 0.5)
    spread = {
        (n, fine): networks.build("slim", width=4, noise=n, fine_noise=fine)
        .eval()(flat)[..., 32:96, 32:96]
        .std((2, 3))
        .max()
        for n, fine in ((0.0, 0.0), (0.2, 0.0), (0.0, 0.2))
    }
    assert min(spread[0.2, 0.0], spread[0.0, 0.2]) > 2 * spread[0.0, 0.0]


def test_noise_shifts_at_random_in_training():
    network = networks.build("slim", width=4, fine_noise=0.2)
    x = torch.rand(1, 3, 32, 32)
    assert not torch.equal(network(x), network(x))
