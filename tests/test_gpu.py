"""What is there for GPUs: Triton's kernels by its interpreter, recorded steps with stand-ins for CUDA's graphs, and
all of it once more on a GPU where there is one."""

import contextlib
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, little_compact, picture

from fast_nst import networks
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss
from fast_nst.methods.style_transfer import StyleTransfer, training_terms
from fast_nst.ops import channels_last
from fast_nst.ops.cuda_graph import CaptureError, GraphedStep

ON_GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


@pytest.fixture(params=["cpu", ON_GPU])
def device(request, monkeypatch) -> str:
    """On a CPU without CUDA's graphs: a recording has what the step that made it found, and is not replayed."""
    if request.param == "cpu":
        nothing = SimpleNamespace(wait_stream=lambda _: None, replay=lambda: None)
        for name in ("CUDAGraph", "Stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: nothing)
        for name in ("graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    return request.param


@pytest.mark.parametrize("where", ["cpu", ON_GPU])
def test_the_kernels_are_an_instance_norm_and_its_gradients(where):
    pytest.importorskip("triton")
    interpreted = {"TRITON_INTERPRET": "1"} if where == "cpu" else {}  # to be said before Triton is imported
    run = [sys.executable, str(ROOT / "tests" / "kernels.py"), where]
    subprocess.run(run, env={**ENVIRONMENT, **interpreted}, check=True)


def training(device: str = "cpu", **settings) -> StyleTransfer:
    loss = PerceptualLoss(
        little_compact(), to_tensor(picture(1, 96, 96)), content_layers={"relu3_3": 1.0},
        style_layers={"relu1_2": 1.0, "relu4_3": 1.0}, content_weight=1.0, style_weight=1.0,
        light_weight=1.0, tv_weight=1.0, normalize=True, style_scales={1: 0.6, 2: 0.4},
    )  # fmt: skip
    loss.to(device)
    network = networks.build("slim", width=8, blocks=1, fine_noise=0.1).to(device)
    network.to(memory_format=torch.channels_last)
    return StyleTransfer(network, loss, "adam", 0.001, "constant", 0, total_steps=9, seed=0, jitter=4, **settings)


@pytest.mark.parametrize("pixels", [0, 4])
def test_a_recorded_step_goes_by_the_same_terms_and_gradients(device, pixels):
    module = training(device)
    network, loss = module.network, module.loss
    step_terms = partial(training_terms, loss=loss, pixels=pixels)
    recorded = GraphedStep(network, step_terms, pixels, bf16=False)
    parameters = list(network.parameters())
    places = set()
    for step in range(1 if device == "cpu" else 6):  # those after the first are replayed
        batch = torch.rand(2, 3, 72, 80, device=device)
        torch.manual_seed(step)
        terms = recorded({"content": batch})
        gradients = torch.autograd.grad(terms["loss"], parameters)
        top, left = recorded.offsets[:2].tolist()
        places.add((top, left))
        rows, columns = slice(top, top + 72 - pixels), slice(left, left + 80 - pixels)
        own = loss(network(batch)[:, :, rows, columns], batch[:, :, rows, columns])
        assert terms.keys() == own.keys()
        for name in own:
            torch.testing.assert_close(terms[name], own[name])
        torch.testing.assert_close(gradients, torch.autograd.grad(own["loss"], parameters), rtol=1e-3, atol=1e-5)
    assert all(0 <= offset < max(1, pixels) for place in places for offset in place)
    assert device == "cpu" or len(places) > (pixels > 0)
    recorded.close()
    assert all(noise.shift is None for noise in recorded.shifted)


def test_a_recorded_step_draws_its_own_place_and_noise_each_time(device):
    module = training(device)
    recorded, drawn = GraphedStep(module.network, module.terms, 4, bf16=False), []
    ends = [4, 4, *(noise.side for noise in recorded.shifted for _ in range(2))]
    assert len(recorded.shifted) == 2
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        content = torch.rand(2, 3, 72, 80, generator=torch.Generator().manual_seed(0)).to(device)
        recorded({"content": content})
        drawn.append(recorded.offsets.tolist())
        assert all(0 <= offset < end for offset, end in zip(drawn[-1], ends, strict=True))
        assert [noise.shift.tolist() for noise in recorded.shifted] == [drawn[-1][2:4], drawn[-1][4:6]]
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_step_that_cannot_be_recorded_is_said_and_done_by_itself(device, monkeypatch):
    module, batch = training(device), torch.rand(2, 3, 72, 80, device=device)
    module.graphed = GraphedStep(module.network, module.terms, 4, bf16=False)
    monkeypatch.setattr(GraphedStep, "_capture", lambda *_: (_ for _ in ()).throw(CaptureError("not permitted")))
    with pytest.warns(UserWarning, match=r"no CUDA graph .*\(not permitted\)"):
        terms = module.graphed_terms({"content": batch})
    assert terms["loss"].requires_grad
    assert module.graphed is None
    terms["loss"].backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["slim", "johnson"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_paints_the_same_on_a_gpu(name, batch, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, x = networks.build(name).eval(), torch.rand(batch, 3, 70, 81)
    with torch.inference_mode():
        here = network(x)
        there = network.to("cuda", memory_format=torch.channels_last)(x.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


def test_a_layout_of_our_own_is_for_where_there_are_ways_for_it(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(channels_last, "_gpu_norm", lambda _: None)
    assert not channels_last.prefers_channels_last(cuda)
    monkeypatch.setattr(channels_last, "_gpu_norm", lambda _: object)
    assert channels_last.prefers_channels_last(cuda)
    assert channels_last.prefers_channels_last(torch.device("cpu"))
    assert not channels_last.prefers_channels_last(torch.device("mps"))
