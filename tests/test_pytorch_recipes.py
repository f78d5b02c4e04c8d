"""The recipes: what each setting does, what is refused, and the options made of them."""

import argparse
import json
from dataclasses import fields, replace

import pytest
import torch

from cs231n.pytorch_optim import Muon
from cs231n.pytorch_recipes import (
    ABLATIONS,
    ADDITIONS,
    PRESETS,
    RECIPES,
    Classic,
    Speedrun,
    add_recipe_options,
    choose_recipe,
    recipe_from,
)
from cs231n.pytorch_resnet import build

CPU = torch.device("cpu")
SMALL = {"widths": (24, 30)}


def net_of(recipe, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(recipe.architecture(10))


# Schedules


def test_classic_falls_after_its_shares_of_the_run():
    recipe = Classic(lr_steps=(0.5, 0.75), lr_factor=0.1)
    rates = [recipe.rate((step + 0.5) / 8) for step in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_speedrun_rises_and_then_falls_to_0_along_straight_lines():
    recipe = Speedrun(warmup=0.2)
    assert [recipe.rate(share) for share in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert Speedrun(warmup=0.0).rate(0.25) == 0.75
    shares = [0, 0.25, 0.99, 1, 1.01]  # LambdaLR asks for a step after the last one, too
    assert [Speedrun(warmup=1.0).rate(share) for share in shares] == shares


# Switches


def test_each_idea_of_speedrun_can_be_turned_off_and_on():
    for idea, change in ABLATIONS.items():
        without = replace(Speedrun(), **change)
        assert (without == Speedrun()) == (idea in ADDITIONS)
        assert replace(without, **ADDITIONS.get(idea, {})) != without or idea not in ADDITIONS
    assert ADDITIONS.keys() < ABLATIONS.keys()
    changed = {setting for change in ABLATIONS.values() for setting in change}
    ideas = {"whitening", "dirac", "bias_lr_factor", "label_smoothing", "muon", "averaging", "blocks"}
    ideas |= {"alternating_flip", "reflect", "cutout", "sides", "whitening_bias"}
    assert changed == ideas | {"test_flip", "test_shifts", "test_unsure", "hardest"}


@pytest.mark.parametrize("whitening", [True, False])
@pytest.mark.parametrize("dirac", [True, False])
def test_first_weights_are_whitening_and_the_identity_where_asked(whitening, dirac):
    recipe = Speedrun(**SMALL, whitening=whitening, dirac=dirac)
    net, untouched = net_of(recipe), net_of(recipe)
    recipe.prepare(net, torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert net.first.weight.requires_grad != whitening
    assert torch.equal(net.first.weight, untouched.first.weight) != whitening
    assert torch.equal(net.layers[1].weight, untouched.layers[1].weight) != dirac


def test_classic_keeps_its_random_first_weights_and_trains_all_by_adamw():
    recipe = Classic(**SMALL, lr=0.3, weight_decay=0.2)
    net, untouched = net_of(recipe), net_of(recipe)
    recipe.prepare(net, torch.zeros(2, 3, 8, 8))
    for ours, theirs in zip(net.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    (optimizer,) = recipe.optimizers(net, CPU)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.3, 0.2, len(list(net.parameters())))


def test_speedrun_gives_muon_the_convolutions_and_sgd_the_rest_with_fast_biases():
    recipe = Speedrun(
        **SMALL, lr=0.5, bias_lr_factor=4.0, weight_decay=0.1, muon_lr=0.2, muon_momentum=0.6, momentum=0.7
    )
    net = net_of(recipe)
    muon, sgd = recipe.optimizers(net, CPU)
    assert isinstance(muon, Muon)
    assert (muon.defaults["lr"], muon.defaults["momentum"]) == (0.2, 0.6)
    assert all(w.ndim == 4 for w in muon.param_groups[0]["params"])
    biases, rest = sgd.param_groups
    assert (biases["lr"], biases["weight_decay"], biases["momentum"], biases["nesterov"]) == (2.0, 0.0, 0.7, True)
    assert (rest["lr"], rest["weight_decay"]) == (0.5, 0.1)
    assert all(w.ndim == 1 for w in biases["params"])
    assert len(muon.param_groups[0]["params"]) + len(biases["params"]) + len(rest["params"]) == sum(
        w.requires_grad for w in net.parameters()
    )


def test_speedrun_without_muon_gives_sgd_all_weights():
    recipe = Speedrun(**SMALL, muon=False)
    net = net_of(recipe)
    (sgd,) = recipe.optimizers(net, CPU)
    assert isinstance(sgd, torch.optim.SGD)
    assert [group["lr"] for group in sgd.param_groups] == [recipe.lr, 64 * recipe.lr, recipe.lr]
    trained = [id(w) for group in sgd.param_groups for w in group["params"]]
    assert sorted(trained) == sorted(id(w) for w in net.parameters() if w.requires_grad)


def test_speedrun_keeps_the_average_it_is_asked_for():
    net = net_of(Speedrun(**SMALL))
    assert Speedrun(averaging="none").average(net) is None
    assert Classic().average(net) is None
    for averaging, pull in (("ema", False), ("lookahead", True)):
        average = Speedrun(averaging=averaging, average_share=0.4, average_period=3).average(net)
        assert (average.share, average.period, average.pull) == (0.4, 3, pull)


def test_the_whitening_bias_is_trained_in_its_share_of_the_epochs():
    recipe = Speedrun(**SMALL, epochs=10, whitening_bias=0.25)
    net, trained = net_of(recipe), []
    for epoch in range(10):
        recipe.freeze(net, epoch)
        trained.append(net.first.bias.requires_grad)
    assert trained == [True] * 3 + [False] * 7
    assert not any(w.requires_grad for w in (recipe.prepare(net, torch.randn(9, 3, 4, 4)), net.first.weight)[1:])


def test_each_side_has_an_equal_share_of_the_epochs():
    assert [Classic(epochs=6, sides=(24, 28, 32)).side(epoch) for epoch in range(6)] == [24, 24, 28, 28, 32, 32]
    assert [Classic(epochs=2, sides=(24, 28, 32)).side(epoch) for epoch in range(2)] == [24, 28]
    assert Speedrun().side(9) == 32


def test_the_proxy_is_a_small_net_trained_like_the_main_one():
    recipe = Speedrun(widths=(128, 384, 512), blocks=(1,), hardest=0.5, seed=3, sides=(24, 32))
    assert recipe.proxy == replace(recipe, widths=(32, 64, 64), blocks=(0, 1), hardest=1.0)
    assert Speedrun(widths=(9, 9), hardest=0.5).proxy.widths == (32, 64)
    assert Speedrun(widths=(9,) * 4, hardest=0.5).proxy.widths == (32, 64, 64)
    assert Speedrun().proxy is None
    assert Classic().proxy is None


# Settings


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", 0, "a whole number of at least 1, got 0"),
        ("epochs", 2.5, "a whole number of at least 1, got 2.5"),
        ("widths", (4, 0), "a whole number of at least 1, got 0"),
        ("widths", (), r"a tuple of numbers, got \(\)"),
        ("widths", 4, "a tuple of numbers, got 4"),
        ("widths", (4,) * 5, "at most 4, each of which halves the image, got 5"),
        ("sides", (7, 32), "a whole number from 8 to 32, got 7"),
        ("sides", (33,), "a whole number from 8 to 32, got 33"),
        ("cutout", 32, "a whole number from 0 to 31, got 32"),
        ("blocks", 1, "a tuple of numbers, got 1"),
        ("whitening_bias", 1.5, "a number from 0 to 1, got 1.5"),
        ("seed", 2**63, f"a whole number from 0 to {2**63 - 1}, got {2**63}"),
        ("pad", -1, "a whole number from 0 to 32, got -1"),
        ("pad", 33, "a whole number from 0 to 32, got 33"),
        ("lr", float("nan"), "a number of at least 0, got nan"),
        ("lr", float("inf"), "a number of at least 0, got inf"),
        ("lr", "fast", "a number of at least 0, got 'fast'"),
        ("label_smoothing", 1.5, "a number from 0 to 1, got 1.5"),
        ("whitening", 1, "True or False, got 1"),
        ("averaging", "swa", "one of none, ema, lookahead, got 'swa'"),
        ("precision", "fp16", "one of auto, bf16, float32, got 'fp16'"),
        ("loader", "dali", "one of device, torchvision, got 'dali'"),
    ],
)
def test_a_bad_setting_is_refused_by_name(name, value, wanted):
    with pytest.raises(ValueError, match=f"{name}: wanted {wanted}"):
        Speedrun(**{name: value})


def test_smaller_images_allow_for_fewer_stages():
    with pytest.raises(ValueError, match="widths: wanted at most 3, each of which halves the image, got 4"):
        Speedrun(sides=(32, 16), widths=(4,) * 4)
    assert Speedrun(sides=(32, 17), widths=(4,) * 4).last_side == 1


def test_a_reflected_image_is_larger_than_its_frame():
    with pytest.raises(ValueError, match="pad: wanted at most 31 pixels of a reflected image, got 32"):
        Speedrun(pad=32)
    assert Speedrun(pad=32, reflect=False).pad == 32


def test_a_step_of_classic_is_a_share_of_the_run_and_no_epoch():
    with pytest.raises(ValueError, match="lr_steps: wanted a number from 0 to 1, got 15"):
        Classic(lr_steps=(0.5, 15))


def test_alternating_flips_and_torchvisions_loader_do_not_go_together():
    with pytest.raises(ValueError, match="alternating_flip: the torchvision loader flips at random"):
        Speedrun(loader="torchvision")
    assert Speedrun(loader="torchvision", alternating_flip=False).loader == "torchvision"


@pytest.mark.parametrize("name", RECIPES)
def test_the_settings_name_the_recipe_and_go_through_json(name):
    recipe = RECIPES[name](widths=(4, 8))
    settings = json.loads(json.dumps(recipe.settings()))
    assert settings == recipe.settings()
    assert (settings.pop("recipe"), settings["widths"]) == (name, [4, 8])
    assert settings.keys() == {setting.name for setting in fields(recipe)}


# Options


def parse(*argv, names=tuple(RECIPES)):
    recipe = choose_recipe(argv, names)
    parser = argparse.ArgumentParser()
    add_recipe_options(parser, recipe, names)
    return recipe_from(parser.parse_args(argv))


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in RECIPES for preset in PRESETS[name]])
def test_each_preset_changes_the_defaults_and_options_change_it(name, preset):
    recipe = parse("--recipe", name, "--preset", preset)
    assert recipe == RECIPES[name](**PRESETS[name][preset])
    assert parse("--recipe", name, "--preset", preset, "--epochs", "99") == replace(recipe, epochs=99)


def test_classic_is_the_default_and_each_recipe_has_its_own_options():
    assert parse() == Classic()
    assert parse("--recipe", "speedrun") == Speedrun()
    assert parse("--lr-steps", "0.2", "0.1") == Classic(lr_steps=(0.2, 0.1))


def test_every_setting_is_an_option():
    given = {
        "--averaging": "ema",
        "--loader": "torchvision",
        "--precision": "float32",
        "--momentum": "0.5",
        "--muon-momentum": "0.5",
        "--bias-lr-factor": "2",
        "--average-share": "0.1",
        "--label-smoothing": "0.1",
        "--warmup": "0.5",
        "--sides": "24",
        "--test-unsure": "0.5",
        "--whitening-bias": "0.5",
        "--hardest": "0.5",
    }
    argv = ["--recipe", "speedrun"]
    for setting in fields(Speedrun):
        option = f"--{setting.name.replace('_', '-')}"
        if isinstance(setting.default, bool):
            argv.append(option.replace("--", "--no-"))
        else:
            argv += [option, given.get(option, "7")]
    recipe = parse(*argv)
    assert all(getattr(recipe, s.name) != s.default for s in fields(Speedrun))
    assert recipe.views == {"test_flip": False, "test_shifts": False, "unsure": 0.5}
    assert (recipe.widths, recipe.lr, recipe.seed, recipe.whitening) == ((7,), 7.0, 7, False)


def test_an_unknown_name_lists_the_choices(capsys):
    for argv, names, says in (
        (["--recipe", "fast"], tuple(RECIPES), "(choose from 'classic', 'speedrun')"),
        (["--recipe", "speedrun", "--preset", "97"], tuple(RECIPES), "(choose from '94', '95', '96', 'cpu', 'tiny')"),
        (["--recipe", "classic"], ("speedrun",), "(choose from 'speedrun')"),
    ):
        with pytest.raises(SystemExit):
            parse(*argv, names=names)
        said = capsys.readouterr().err.replace("choose from classic, speedrun", "choose from 'classic', 'speedrun'")
        said = said.replace("choose from 94, 95, 96, cpu, tiny", "choose from '94', '95', '96', 'cpu', 'tiny'")
        assert says in said.replace("choose from speedrun", "choose from 'speedrun'")  # Pythons differ in the quotes
