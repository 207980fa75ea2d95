"""What is there for GPUs: Triton's kernels by its interpreter, recorded steps with stand-ins for CUDA's graphs, and
all of it once more on a GPU where there is one."""

import contextlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, picture

from fast_nst import networks
from fast_nst.image import to_tensor
from fast_nst.loss_networks.compact import Ensemble
from fast_nst.losses import PerceptualLoss
from fast_nst.networks import functional
from fast_nst.training.module import StyleTransfer
from fast_nst.training.recorded import RecordedStep

ON_GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


@pytest.fixture(params=["cpu", ON_GPU])
def device(request, monkeypatch) -> str:
    """On a CPU without CUDA's graphs: a recording has what the step that made it found, and is not replayed."""
    if request.param == "cpu":
        nothing = SimpleNamespace(wait_stream=lambda _: None, replay=lambda: None)
        for name in ("CUDAGraph", "graph_pool_handle", "Stream", "current_stream"):
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
        Ensemble(members=2, width=8, outputs={"relu1_2": 4, "relu3_4": 4}, ranks=((4, 4),) * 7),
        to_tensor(picture(1, 96, 96)), content_layers={"relu3_4": 1.0}, style_layers={"relu1_2": 1.0, "relu3_4": 1.0},
        content_weight=1.0, style_weight=1.0, periodicity_weight=1.0, views=8, shift=4, correct_every=1, finish=1 / 3,
    )  # fmt: skip
    loss.to(device)
    network = networks.build("slim", width=8, blocks=1, fine_noise=0.1).to(device)
    network.to(memory_format=torch.channels_last)
    return StyleTransfer(network, loss, "adam", 0.001, "constant", 0, 0.7, total_steps=9, seed=0, **settings)


@pytest.mark.parametrize("finishing", [False, True])
def test_a_recorded_step_goes_by_the_same_terms_and_gradients(device, finishing):
    module = training(device)
    network, loss = module.network, module.loss
    recorded = RecordedStep(network, loss, low=False)
    parameters = list(network.parameters())
    for step in (0, 1):  # before and after the first correction
        batch = torch.rand(2, 3, 72, 80, device=device)
        torch.manual_seed(step)
        terms = recorded(batch, step, finishing=finishing)
        gradients = torch.autograd.grad(terms["loss"], parameters)
        torch.manual_seed(step)
        torch.rand(len(recorded.ends), dtype=torch.float64)
        view = loss.random_view()
        top, left = recorded.offsets[:2].tolist()
        rows, columns = slice(top, top + 68), slice(left, left + 76)
        own = loss(network(batch)[:, :, rows, columns], batch[:, :, rows, columns], view, finishing)
        assert terms.keys() == own.keys()
        for name in own:
            torch.testing.assert_close(terms[name], own[name])
        torch.testing.assert_close(gradients, torch.autograd.grad(own["loss"], parameters), rtol=1e-3, atol=1e-5)
    assert len(recorded.recordings) == 2
    recorded.close()
    assert all(noise.at is None for noise in recorded.noises)


def test_a_step_that_cannot_be_recorded_is_said_and_done_by_itself(device, monkeypatch):
    module, batch = training(device), torch.rand(2, 3, 72, 80, device=device)
    monkeypatch.setattr(StyleTransfer, "trainer", SimpleNamespace(strategy=None))
    module.recorded = RecordedStep(module.network, module.loss, low=False)
    monkeypatch.setattr(RecordedStep, "_record", lambda *_: (_ for _ in ()).throw(RuntimeError("not permitted\nhere")))
    with pytest.warns(UserWarning, match=r"no CUDA graph .*\(not permitted\)"):
        terms = module._terms(batch, False)
    assert terms["loss"].requires_grad
    assert module.recorded is None
    module._terms(batch, False)["loss"].backward()


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
    monkeypatch.setattr(functional, "_gpu_norm", lambda _: None)
    assert not functional.prefers_channels_last(cuda)
    monkeypatch.setattr(functional, "_gpu_norm", lambda _: object)
    assert functional.prefers_channels_last(cuda)
    assert functional.prefers_channels_last(torch.device("cpu"))
    assert not functional.prefers_channels_last(torch.device("mps"))
