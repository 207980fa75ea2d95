"""What a training goes by besides the formula: ways to look, members, their corrections, the reference."""

import numpy as np
import pytest
import torch
from losses import loss_network, settings

from fast_nst.loss_networks.compact import Ensemble
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.losses.calibration import marks, masses
from fast_nst.losses.functional import gram
from fast_nst.losses.perceptual import CORRECTION
from fast_nst.losses.views import VIEWS, look


@pytest.mark.parametrize("view", [0, 1, 2, 4, 7])
def test_a_view_is_the_loss_of_all_three_pictures_seen_so(view, images):
    table = settings("default")
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    found = PerceptualLoss(network, images[2], **table)(*images[:2], view=view)

    def seen(image):
        across, down, transposed = view & 1, view & 2, view & 4
        array = image.numpy()[:, :, :: -1 if down else 1, :: -1 if across else 1]
        return torch.from_numpy((array.swapaxes(2, 3) if transposed else array).copy())

    ours, photograph, painting = map(seen, images)
    wanted = PerceptualLoss(network, painting, **table)(ours, photograph)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_a_painting_that_carries_little_gets_less_style_weight():
    table = {**settings("default"), "calibrate": {"masses": 0.13, "marks": 0.0}}
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    steps = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    sample = np.tile(np.linspace(0, 1, 32), 32).std(ddof=1)
    assert masses(steps.repeat_interleave(2, 2).repeat_interleave(3, 3)) == pytest.approx(sample, abs=1e-3)
    for scale, calibration in ((1.0, 1.0), (0.2, round(0.2 * sample / 0.13, 2)), (0.0, 0.1)):
        loss = PerceptualLoss(network, steps * scale, **table)
        assert loss.calibration == calibration
        assert loss.style_weight == pytest.approx(table["style_weight"] * calibration)
    assert PerceptualLoss(network, steps * 0.2, **{**table, "calibrate": {}}).calibration == 1
    assert marks(steps) == pytest.approx(1 / 31)
    assert marks(torch.rand(1, 3, 1, 40)) == 0
    assert PerceptualLoss(network, steps, **{**table, "calibrate": {"marks": 0.04}}).calibration == 0.81
    stairs = (torch.arange(512) // 2 / 255).expand(1, 3, 512, 512)  # at 256 pixels each value once
    assert marks(stairs) == pytest.approx(1 / 255, rel=1e-3)


def test_a_training_sees_pictures_and_photographs_moved_alike(images):
    table = settings("default")
    loss = PerceptualLoss(
        loss_network(layers_needed(table["content_layers"], table["style_layers"])), images[2], **table
    )
    picture = torch.arange(64.0 * 72).view(1, 1, 64, 72)
    places = set()
    for _ in range(200):
        image, photograph = loss.shifted(picture, picture + 0.5)
        assert image.shape == (1, 1, 60, 68)
        assert torch.equal(photograph, image + 0.5)
        places.add(divmod(int(image[0, 0, 0, 0]), 72))
    assert places == {(top, left) for top in range(4) for left in range(4)}
    small = picture[:, :, : loss.smallest + 3]
    assert loss.shifted(small, small) == (small, small)


def test_a_training_asks_every_member_in_every_view(images):
    table = settings("default")
    layers = layers_needed(table["content_layers"], table["style_layers"])
    ensemble = Ensemble(members=2, width=8, outputs=dict.fromkeys(layers, 4))
    loss = PerceptualLoss(ensemble, images[2], **table)
    views = {loss.random_view() for _ in range(400)}
    assert views == set(range(2 * VIEWS))
    alone = PerceptualLoss(loss_network(layers), images[2], **table)
    assert {alone.random_view() for _ in range(200)} == set(range(VIEWS))
    for member, student in enumerate(ensemble.students):
        found = loss(*images[:2], view=member * VIEWS + 5)
        alone = PerceptualLoss(student, images[2], **table)(*images[:2], view=5)
        assert found == alone
    first, second = (loss(*images[:2], view=member * VIEWS) for member in range(2))
    assert first != second
    for name, value in loss(*images[:2]).items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)


def test_with_a_members_mean_error_in_the_target_it_is_the_references_style_that_counts(images):
    table = {**settings("default"), "correct_every": 5}
    layers = layers_needed(table["content_layers"], table["style_layers"])
    ensemble = Ensemble(members=2, width=8, outputs=dict.fromkeys(layers, 4), ranks=((4, 4),) * 7)
    loss = PerceptualLoss(ensemble, images[2], **table)
    image, photograph = images[0][:1], images[1][:1]
    uncorrected = [float(loss(image, photograph, view=member * VIEWS + 3)["style"]) for member in range(2)]
    loss.correct(image, 3)
    for member in range(2):
        style = 0.0
        for divisor, weight in table["style_scales"].items():
            ours, painting = (torch.nn.functional.avg_pool2d(look(x, 3), divisor) for x in (image, images[2]))
            for name in table["style_layers"]:
                there, wanted = (gram(ensemble.refer(x, [name])[member][name]) for x in (ours, painting))
                target = gram(ensemble(ours, [name], member)[name]) - there + wanted
                style += weight * float((there - wanted).square().mean() / target.square().mean())
        found = float(loss(image, photograph, view=member * VIEWS + 3)["style"])
        assert found == pytest.approx(style, rel=1e-4)
        assert found != pytest.approx(uncorrected[member], rel=1e-2)


def test_corrections_come_every_so_many_steps_and_follow_what_is_painted(images):
    table = {**settings("default"), "correct_every": 5}
    layers = layers_needed(table["content_layers"], table["style_layers"])
    ensemble = Ensemble(members=1, width=8, outputs=dict.fromkeys(layers, 4), ranks=((4, 4),) * 7)
    loss = PerceptualLoss(ensemble, images[2], **{**table, "views": 1})
    found = []
    for step in range(11):
        loss.sampled(*images[:2], step)
        correction = loss.corrections.get("0/1/relu3_4")
        found.append(None if correction is None else correction.clone())
    assert found[:5] == [None] * 5
    assert all(torch.equal(each, found[5]) for each in found[5:10])
    torch.testing.assert_close(found[10], found[5])  # the same picture again
    loss.correct(images[1], 0, lambda error: error * 0)
    torch.testing.assert_close(loss.corrections["0/1/relu3_4"], found[5] * (1 - CORRECTION))
    before = loss.corrections["0/1/relu3_4"].clone()
    loss.correct(images[1] * float("nan"), 0)
    assert torch.equal(loss.corrections["0/1/relu3_4"], before)
    never = PerceptualLoss(ensemble, images[2], **{**table, "correct_every": 0})
    never.sampled(*images[:2], 5)
    assert not never.corrections


def test_the_last_steps_go_by_the_reference_at_the_finest_size(images):
    table = {**settings("default"), "correct_every": 1, "finish": 0.5, "shift": 0}
    layers = layers_needed(table["content_layers"], table["style_layers"])
    ensemble = Ensemble(members=1, width=8, outputs=dict.fromkeys(layers, 4), ranks=((4, 4),) * 7)

    def terms(network, finishing=False, **sizes):
        loss = PerceptualLoss(network, images[2], **{**table, **sizes})
        torch.manual_seed(0)
        return loss, loss.sampled(*images[:2], step=None, finishing=finishing)

    finest, rest = {"style_scales": {1: 0.35}, "content_scales": {1: 1.0}}, {"style_scales": {2: 0.3, 4: 0.35}}
    rest["content_scales"] = {4: 1.0, 8: 1.0}
    _, whole = terms(ensemble, finishing=True)
    reference, fine = terms(ensemble.reference, **finest, views=1)  # as it is, whatever the members look through
    members, coarse = terms(ensemble, **rest)
    torch.manual_seed(0)
    assert members.random_view() > 0
    torch.testing.assert_close(whole["loss"], fine["loss"] + coarse["loss"])
    assert abs(terms(ensemble)[1]["loss"] - whole["loss"]) > 0.01 * whole["loss"]
    assert reference.finish == 0  # it has no reference to finish by
    loss, _ = terms(ensemble)
    loss.sampled(*images[:2], step=1, finishing=True)
    assert {key.split("/")[1] for key in loss.corrections} == {"2", "4"}  # no member is asked at the finest


def test_the_views_differ(images):
    seen = {look(images[0], view).numpy().tobytes() for view in range(VIEWS)}
    assert len(seen) == VIEWS == 8
    assert torch.equal(look(images[0], 0), images[0])
