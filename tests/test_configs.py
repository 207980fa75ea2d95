"""Every YAML composes, and what it names can be built."""

import inspect
import re
import sys

import hydra
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fast_nst import data, loss_networks, networks
from fast_nst.commands import cli, config, train
from fast_nst.commands.help import sections
from fast_nst.data import styles
from fast_nst.errors import UserError
from fast_nst.loss_networks import NAMES, compact
from fast_nst.loss_networks.vgg import layer_indices
from fast_nst.losses import PerceptualLoss, functional
from fast_nst.training.optimizers import SCHEDULES

CONFIGS = ROOT / "configs"


def composed(*overrides: str) -> dict:
    return config.compose("train", overrides)


def members(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


# Experiments of the other script: test_optimization.py.
OF_OPTIMIZE = ("feature_inversion", "texture_synthesis", "gatys2015")
CHOICES = [
    (group.name, name)
    for group in sorted(CONFIGS.iterdir())
    if group.is_dir()
    for name in members(group.name)
    if name not in OF_OPTIMIZE
]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_builds(group, name, photographs):
    cfg = composed(f"{group}={name}")
    if cfg["network"]["name"] != "generator":  # it paints no photographs; test_adversarial.py
        (networks.generator.build if cfg["network"]["name"] == "generator" else networks.build)(**cfg["network"])
    assert styles.load(styles.find(cfg["style"]["image"]), 64).shape[1] == 3
    assert cfg["loss_network"]["name"] in NAMES
    assert cfg["optimizer"]["schedule"] in SCHEDULES
    layers = [*cfg["loss"]["content_layers"], *cfg["loss"]["style_layers"]]
    if cfg["loss_network"]["name"] != "compact":
        assert set(layers) <= set(layer_indices(cfg["loss_network"]["name"]))
    elif group != "loss":  # a published one is for a loss network of its own
        assert set(layers) <= set(compact.VGG_16)
    assert {"name", "weights"} <= set(cfg["loss_network"]) <= {"name", "weights", "pooling", "unit_mean"}
    content = {key: value for key, value in cfg["data"].items() if key not in ("batch_size", "workers")}
    if content["name"] == "folder":
        content["root"] = photographs
    if content["name"] not in ("mnist", "shards"):  # need their files: test_data.py, test_shards.py
        sets = data.build(**{**content, "count": content["count"] and 5}, seed=cfg["seed"])
        assert sets.train[0].shape == (3, cfg["data"]["size"], cfg["data"]["size"])


def test_the_default_needs_nothing_but_the_package():
    cfg = composed()
    assert (cfg["loss_network"]["name"], cfg["data"]["name"], cfg["network"]["name"]) == (
        "compact",
        "synthetic",
        "conditional",
    )
    assert cfg["loss"]["normalize"] is True
    layers = [*cfg["loss"]["content_layers"], *cfg["loss"]["style_layers"]]
    assert set(loss_networks.build("compact", layers).taps.values()) == set(layers)
    sizes = [size for name in ("style_scales", "content_scales") for size in cfg["loss"].get(name, ())]
    sizes.append(inspect.signature(functional.light_loss).parameters["divisor"].default)
    seen = cfg["data"]["size"] - cfg["loss"]["jitter"]
    assert all(seen % divisor == 0 for divisor in sizes)  # nothing is left over


# The table of the published recipes: what each preset must say.
RECIPES = {
    "johnson2016": {
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0},
        "data": {"size": 256, "batch_size": 4, "crop": "center"},
        "trainer": {"max_steps": 40000, "max_epochs": None},
        "style": {"size": 256, "side": "longer"},
        "loss_network": {"name": "vgg16", "pooling": "max"},
        "network": {"filters": [32, 64, 128], "blocks": 5, "padding": "reflection_once", "upsampling": "transposed",
                    "pixels": "caffe", "kernel": 9},
        "loss": {"content_weight": 1, "style_weight": 5, "tv_weight": 1e-6, "content_layers": {"relu3_3": 1}},
    },
    "pytorch_examples": {
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0},
        "data": {"size": 256, "batch_size": 4, "crop": "center"},
        "trainer": {"max_steps": None, "max_epochs": 2},
        "style": {"size": None},
        "loss_network": {"name": "vgg16", "pooling": "max"},
        "network": {"filters": [32, 64, 128], "blocks": 5, "padding": "reflection", "upsampling": "nearest",
                    "pixels": "rgb255", "norm": "instance", "kernel": 9},
        "loss": {"content_weight": 1e5, "style_weight": 1e10, "tv_weight": 0, "content_layers": {"relu2_2": 1}},
    },
    "lengstrom": {
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0},
        "data": {"size": 256, "batch_size": 4},
        "trainer": {"max_steps": None, "max_epochs": 2},
        "style": {"size": None},
        "loss_network": {"name": "vgg19", "pooling": "max"},
        "network": {"filters": [32, 64, 128], "blocks": 5, "padding": "tensorflow", "upsampling": "transposed",
                    "pixels": "unit", "norm": "instance", "bias": False, "kernel": 9},
        "loss": {"content_weight": 7.5, "style_weight": 1e2, "tv_weight": 2e2, "content_layers": {"relu4_2": 1}},
    },
    "tnst": {
        "optimizer": {"name": "adam", "schedule": "cosine"},
        "network": {"name": "conditional"},
        "loss_network": {"name": "compact"},
        "method": {"first_phase": 0.3},
        "data": {"size": 64, "batch_size": 8},
        "loss": {"content_weight": 1, "content_reduction": "quarter_sum", "tv_reduction": "half_sum"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_published_one(name):
    cfg = composed(f"experiment={name}")
    cfg["loss"].setdefault("tv_weight", 0)
    for group, values in RECIPES[name].items():
        assert {key: cfg[group][key] for key in values} == values, group


@pytest.mark.parametrize("name", [name for name in members("loss") if name != "default"])
def test_a_published_loss_has_no_term_of_ours(name):
    loss = composed(f"loss={name}")["loss"]
    assert not loss.get("normalize", False)
    assert not set(loss) & {"style_scales", "content_scales", "light_weight", "jitter"}


@pytest.fixture
def typed(monkeypatch):
    """The settings that train.py, or another script, makes of a command line."""

    def settle(*words: str, script: str = "train") -> dict:
        found = {}

        @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=script)
        def main(composed):
            config.settle(composed)
            found.update(OmegaConf.to_container(composed, resolve=True))

        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which it sets; to be taken back
        with pytest.raises(SystemExit) as ended:
            config.run(main, script)
        assert ended.value.code == 0
        return found

    return settle


GIVEN = {
    "tv_weight": 0.25, "light_weight": 0.75, "jitter": 3, "content_reduction": "half_sum",
    "tv_reduction": "half_sum", "pixel_range": 2.0, "normalize": False, "temporal_weight": 4.0,
}  # fmt: skip


def test_what_a_command_line_may_add_to_a_loss_are_its_arguments():
    arguments = inspect.signature(PerceptualLoss).parameters
    assert {name.removeprefix("loss.") for name in config.TABLES} == {
        name for name in arguments if name.endswith(("_layers", "_scales"))
    }
    assert {f"loss.{name}" for name in GIVEN} == set(config.OPTIONAL)
    assert {*GIVEN} - {*arguments} == {"jitter", "temporal_weight"}  # of the training


@pytest.mark.parametrize("script", ["train", "optimize"])
@pytest.mark.parametrize("name", members("loss"))
def test_what_a_loss_may_leave_out_can_be_given_with_each(name, script, typed):
    before = composed(f"loss={name}")["loss"]
    words = [f"loss.{key}={value}" for key, value in GIVEN.items()]
    assert typed(f"loss={name}", *words, script=script)["loss"] == {**before, **GIVEN}


@pytest.mark.parametrize("name", members("loss"))
def test_a_table_that_is_given_takes_the_place_of_the_one_there(name, typed):
    tables = {"content_layers": {"relu9_1": 1.5}, "style_layers": {"relu9_2": 0.5}}
    scales = {"style_scales": {1: 1, 3: 0.5}, "content_scales": {2: 1}}
    words = [f"loss.{key}={value}".replace("'", "") for key, value in {**tables, **scales}.items()]
    assert typed(f"loss={name}", *words)["loss"] == {**composed(f"loss={name}")["loss"], **tables, **scales}


def test_the_command_line_wins_over_an_experiment():
    cfg = composed("experiment=pytorch_examples", "data.batch_size=2", "network=slim", "loss.style_weight=5")
    assert (cfg["data"]["batch_size"], cfg["network"]["name"], cfg["loss"]["style_weight"]) == (2, "slim", 5)


# Keys that take any word, and those that take a list.
WORDS = {"style.name", "output_dir"}
SERIES = {"style.size", "trainer.devices"}


@pytest.mark.slow
@pytest.mark.parametrize("value", ["word", "[11, 22]", "{abc: 1}", "-1", "1.5", "1e400"])
def test_a_value_of_the_wrong_type_is_named_in_one_line(value, tmp_path, monkeypatch):
    """Every key of --help: a run either starts or ends with an error that names the key or what it was given."""
    monkeypatch.chdir(tmp_path)
    accepted = set()
    for key in (key.name for keys in sections(CONFIGS, "train", []).values() for key in keys):
        words = ["style=cubist", "data.size=64", "data.val_size=64", "data.count=5", "output_dir=run", f"{key}={value}"]
        try:
            train.Run(config.compose("train", words), words)
            accepted.add(key)
        except (UserError, OmegaConfBaseException, HydraException) as error:
            line = cli.explain(error) if not isinstance(error, UserError) else str(error)
            assert "\n" not in line, (key, line)
            assert key.split(".")[-1] in line or re.search(r"[-\w.]+", value)[0] in line, (key, line)
    if value == "word":
        assert accepted == WORDS
    if value == "[11, 22]":
        assert accepted <= SERIES
    if value == "{abc: 1}":
        assert not accepted


@pytest.mark.parametrize("words", [[], ["network=johnson", "data=coco", "loss=gatys2015", "loss_network=vgg19"]])
@pytest.mark.parametrize("script", ["train", "optimize"])
def test_help_explains_every_key_and_no_other(script, words):
    words = [word for word in words if script == "train" or not word.startswith(("network=", "data="))]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        tree = OmegaConf.to_container(compose(script, words))
    keys = [key for keys in sections(CONFIGS, script, words).values() for key in keys]
    real = {f"{a}.{b}" for a, group in tree.items() if isinstance(group, dict) for b in group}
    real |= {a for a, value in tree.items() if not isinstance(value, dict)}
    internal = {f"{group}.name" for group in ("network", "data", "loss_network", "optimizer", "method")}
    assert {key.name for key in keys} == real - internal
    assert len(keys) <= 45 or words
    if not words:
        assert [key.name for key in keys if not key.comment] == []
