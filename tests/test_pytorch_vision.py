"""torchvision imports beside a torch that its compiled part was not built for, and other errors are passed on."""

import io
import sys
import textwrap
import warnings
from contextlib import redirect_stdout

import pytest
from children import Child

# A torchvision whose import fails as that of a CUDA build beside a CPU torch does: it registers fake kernels for two
# operators, which only its compiled part, absent here, would have declared.
BROKEN = """
    import torch
    import torchvision.extension  # stays in sys.modules when this import fails

    @torch.library.register_fake("torchvision::nms")
    def nms(dets, scores, iou_threshold):
        return dets

    @torch.library.register_fake("torchvision::qnms")
    def qnms(dets, scores, iou_threshold):
        return dets

    state = "whole"
"""


def run(tell, code, path):
    warnings.simplefilter("error")
    sys.path.insert(0, str(path))
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(textwrap.dedent(code), {})
    except Exception as error:
        tell((printed.getvalue(), f"{type(error).__name__}: {error}"))
    else:
        tell((printed.getvalue(), None))


def run_python(code, path):
    """Run code in a process of its own, with the folder path before the installed packages.

    Returns what it printed and the error it ended with, or None.
    """
    with Child(run, code, path) as child:
        return child.message()


def fake_torchvision(folder, source):
    package = folder / "torchvision"
    (package / "transforms").mkdir(parents=True)
    for name in ("extension.py", "transforms/__init__.py", "transforms/v2.py"):
        (package / name).write_text("")
    (package / "__init__.py").write_text("print('importing')\n" + textwrap.dedent(source))
    return folder


# What the plain import says, and then that this module's import succeeds after it.
PLAIN_THEN_REPAIRED = """
    try:
        import torchvision
        print("good")
    except RuntimeError as error:
        print(error)
    from cs231n.pytorch_vision import torchvision
    import sys, torch
    assert torchvision is sys.modules["torchvision"]
    assert torchvision.extension is sys.modules["torchvision.extension"]
    assert torch.ops.torchvision.nms.default
    print(getattr(torchvision, "state", "installed"))
"""
MESSAGE = "operator torchvision::nms does not exist"


def test_the_installed_pair_imports(tmp_path):
    printed, error = run_python(PLAIN_THEN_REPAIRED, tmp_path)
    assert printed in (f"{MESSAGE}\ninstalled\n", "good\ninstalled\n"), error


def test_a_broken_pair_imports_whole(tmp_path):
    printed, error = run_python(PLAIN_THEN_REPAIRED, fake_torchvision(tmp_path, BROKEN))
    assert printed == f"importing\n{MESSAGE}\nimporting\nimporting\nwhole\n", error


def test_a_good_pair_is_a_plain_import(tmp_path):
    code = """
        from cs231n import pytorch_vision
        print(pytorch_vision.torchvision.state, pytorch_vision._library)
    """
    assert run_python(code, fake_torchvision(tmp_path, "state = 'good'")) == ("importing\ngood None\n", None)


@pytest.mark.parametrize(
    ("source", "message", "tries"),
    [
        ("raise RuntimeError('out of cheese')", "RuntimeError: out of cheese", 1),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'", 1),
        ("raise ModuleNotFoundError('gone', name='torchvision')", "ImportError: torchvision is not installed: ", 1),
        (
            "raise RuntimeError('operator torchvision::roi_align does not exist')",
            "RuntimeError: operator torchvision::roi_align does not exist",
            2,
        ),
    ],
    ids=["another error", "another module", "torchvision missing", "another operator"],
)
def test_other_import_errors_are_passed_on(tmp_path, source, message, tries):
    printed, error = run_python("import cs231n.pytorch_vision", fake_torchvision(tmp_path, source))
    assert error.startswith(message)
    assert printed == "importing\n" * tries


def test_a_missing_torch_says_how_to_install_it(tmp_path):
    code = """
        import sys
        sys.modules["torch"] = None
        import cs231n.pytorch_vision
    """
    _, error = run_python(code, fake_torchvision(tmp_path, "import torch"))
    assert error == "ImportError: torch is not installed: pip install torch torchvision"


def test_datasets_transforms_and_models_work():
    import torch

    from cs231n.pytorch_vision import torchvision

    assert len(torchvision.datasets.FakeData(size=2, image_size=(3, 32, 32), num_classes=10)) == 2
    assert torchvision.datasets.CIFAR10.train_list[0][1] == "c99cafc152244af753f735de768cd75f"

    v2 = torchvision.transforms.v2
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(p=1.0),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.5] * 3, std=[0.25] * 3),
        ]
    )
    images = transform(torchvision.tv_tensors.Image(torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)))
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.max() == 2.0

    model = torchvision.models.resnet18(num_classes=10).eval()
    with torch.inference_mode():
        scores = model(images)
    assert scores.shape == (2, 10)
    assert bool(torch.isfinite(scores).all())
