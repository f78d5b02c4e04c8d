"""torchvision imports beside a torch that its compiled part was not built for, and other errors are passed on."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

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


def run_python(code, *, path=None):
    """Run `code` in an interpreter of its own, with the folder `path` before the installed packages."""
    folders = [str(folder) for folder in (path, ROOT) if folder is not None]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake_torchvision(folder, source):
    package = folder / "torchvision"
    (package / "transforms").mkdir(parents=True)
    for name in ("extension.py", "transforms/__init__.py", "transforms/v2.py"):
        (package / name).write_text("")
    (package / "__init__.py").write_text("print('importing')\n" + textwrap.dedent(source))
    return folder


def last_line(text):
    return text.strip().splitlines()[-1]


# What the plain import says, and then that this module's import succeeds after it.
PLAIN_THEN_MENDED = """
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


def test_the_installed_pair_imports():
    done = run_python(PLAIN_THEN_MENDED)
    assert done.stdout in (f"{MESSAGE}\ninstalled\n", "good\ninstalled\n"), done.stderr


def test_a_broken_pair_imports_whole(tmp_path):
    done = run_python(PLAIN_THEN_MENDED, path=fake_torchvision(tmp_path, BROKEN))
    assert done.stdout == f"importing\n{MESSAGE}\nimporting\nimporting\nwhole\n", done.stderr


def test_a_good_pair_is_a_plain_import(tmp_path):
    path = fake_torchvision(tmp_path, "state = 'good'")
    code = """
        import sys
        from cs231n import pytorch_vision
        assert pytorch_vision.torchvision.state == "good"
        assert pytorch_vision._library is None and "torch" not in sys.modules
    """
    done = run_python(code, path=path)
    assert done.returncode == 0, done.stderr


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
def test_what_cannot_be_mended_is_passed_on(tmp_path, source, message, tries):
    done = run_python("import cs231n.pytorch_vision", path=fake_torchvision(tmp_path, source))
    assert done.returncode == 1
    assert last_line(done.stderr).startswith(message)
    assert done.stdout == "importing\n" * tries


def test_a_missing_torch_says_how_to_install_it(tmp_path):
    path = fake_torchvision(tmp_path, "import torch")
    code = """
        import sys
        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name="torch")
        sys.meta_path.insert(0, NoTorch())
        import cs231n.pytorch_vision
    """
    done = run_python(code, path=path)
    assert last_line(done.stderr) == "ImportError: torch is not installed: pip install torch torchvision"


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
