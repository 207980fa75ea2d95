"""GPU code: Triton kernels in its interpreter, CUDA graphs with stand-ins, and both on a GPU if there is one."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType, SimpleNamespace

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
    """On a CPU, replace CUDA graphs: a capture computes one step, and a replay does nothing."""
    if request.param == "cpu":
        nothing = SimpleNamespace(wait_stream=lambda _: None, replay=lambda: None)
        for name in ("CUDAGraph", "Stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: nothing)
        for name in ("graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    return request.param


@pytest.mark.parametrize("where", ["cpu", ON_GPU])
def test_triton_norm_and_its_gradients_match_torch(where):
    pytest.importorskip("triton")
    interpreted = {"TRITON_INTERPRET": "1"} if where == "cpu" else {}  # must be set before Triton is imported
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


def step_terms(module: StyleTransfer) -> partial:
    return partial(training_terms, loss=module.loss, pixels=module.jitter)


@pytest.mark.parametrize("pixels", [0, 4])
def test_graphed_step_matches_eager_terms_and_gradients(device, pixels):
    module = training(device)
    network, loss = module.network, module.loss
    terms = partial(training_terms, loss=loss, pixels=pixels)
    graphed = GraphedStep(network, terms, pixels, bf16=False)
    parameters = list(network.parameters())
    offsets = set()
    for step in range(1 if device == "cpu" else 6):  # all but the first are replayed
        batch = torch.rand(2, 3, 72, 80, device=device)
        torch.manual_seed(step)
        terms = graphed({"content": batch})
        gradients = torch.autograd.grad(terms["loss"], parameters)
        top, left = graphed.offsets[:2].tolist()
        offsets.add((top, left))
        rows, columns = slice(top, top + 72 - pixels), slice(left, left + 80 - pixels)
        eager = loss(network(batch)[:, :, rows, columns], batch[:, :, rows, columns])
        assert terms.keys() == eager.keys()
        for name in eager:
            torch.testing.assert_close(terms[name], eager[name])
        torch.testing.assert_close(gradients, torch.autograd.grad(eager["loss"], parameters), rtol=1e-3, atol=1e-5)
    assert all(0 <= offset < max(1, pixels) for pair in offsets for offset in pair)
    assert device == "cpu" or len(offsets) > (pixels > 0)
    graphed.close()
    assert all(noise.shift is None for noise in graphed.shifted_modules)


def test_graphed_step_draws_jitter_and_noise_shifts_from_the_seed(device):
    module = training(device)
    graphed, drawn = GraphedStep(module.network, step_terms(module), 4, bf16=False), []
    ends = [4, 4, *(noise.side for noise in graphed.shifted_modules for _ in range(2))]
    assert len(graphed.shifted_modules) == 2
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        content = torch.rand(2, 3, 72, 80, generator=torch.Generator().manual_seed(0)).to(device)
        graphed({"content": content})
        drawn.append(graphed.offsets.tolist())
        assert all(0 <= offset < end for offset, end in zip(drawn[-1], ends, strict=True))
        assert [noise.shift.tolist() for noise in graphed.shifted_modules] == [drawn[-1][2:4], drawn[-1][4:6]]
    assert drawn[0] == drawn[2] != drawn[1]


def test_step_that_cannot_be_captured_warns_and_runs_eagerly(device, monkeypatch):
    module, batch = training(device), torch.rand(2, 3, 72, 80, device=device)
    module.graphed = GraphedStep(module.network, step_terms(module), 4, bf16=False)
    monkeypatch.setattr(GraphedStep, "_capture", lambda *_: (_ for _ in ()).throw(CaptureError("not permitted")))
    with pytest.warns(UserWarning, match=r"cannot be captured as a CUDA graph.*\(not permitted\)"):
        terms = module.graphed_terms({"content": batch})
    assert terms["loss"].requires_grad
    assert module.graphed is None
    terms["loss"].backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["slim", "johnson"])
@pytest.mark.parametrize("batch", [1, 2])
def test_network_output_on_gpu_matches_cpu(name, batch, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, content = networks.build(name).eval(), torch.rand(batch, 3, 70, 81)
    with torch.inference_mode():
        on_cpu = network(content)
        on_gpu = network.to("cuda", memory_format=torch.channels_last)(content.cuda())
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-4)


def test_channels_last_is_preferred_where_its_operations_are_fast(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(channels_last, "_triton_norm", lambda _: None)
    assert not channels_last.prefers_channels_last(cuda)
    monkeypatch.setattr(channels_last, "_triton_norm", lambda _: object)
    assert channels_last.prefers_channels_last(cuda)
    assert channels_last.prefers_channels_last(torch.device("cpu"))
    assert not channels_last.prefers_channels_last(torch.device("mps"))


@pytest.fixture
def uncached_norm(monkeypatch) -> Iterator[None]:
    """Make a CUDA device and Triton seem to be there, and forget earlier results of `_triton_norm`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(channels_last, "find_spec", lambda _: object())
    channels_last._triton_norm.cache_clear()
    yield
    channels_last._triton_norm.cache_clear()


def test_broken_triton_norm_warns_once_with_the_reason(uncached_norm, monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise RuntimeError("no C compiler\nstack")

    monkeypatch.setitem(sys.modules, "fast_nst.ops.triton_norm", Broken("triton_norm"))
    with pytest.warns(UserWarning, match=r"Triton instance norm does not work here.*\(no C compiler\)$") as caught:
        assert [channels_last._triton_norm(torch.device("cuda")) for _ in range(2)] == [None, None]
    assert len(caught) == 1


@pytest.mark.parametrize("missing", ["triton", "device"])
def test_triton_norm_is_silent_without_triton_or_device(uncached_norm, monkeypatch, missing):
    if missing == "triton":
        monkeypatch.setattr(channels_last, "find_spec", lambda _: None)
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert channels_last._triton_norm(torch.device("cuda")) is None  # pytest turns warnings into errors
