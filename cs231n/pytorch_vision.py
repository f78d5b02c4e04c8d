"""torchvision, importable beside a CPU build of torch: `from cs231n.pytorch_vision import torchvision`.

A torchvision wheel is compiled for one build of torch.  Beside another, such as a CUDA torchvision next to a CPU torch,
its compiled operators do not load, and `import torchvision` fails because it registers fake kernels for two of them:
"operator torchvision::nms does not exist".  Data sets, transforms and models use none of these operators.  This module
therefore declares the two, by their schemas only, and tries the import again.  The operators themselves
(`torchvision.ops.nms`, `roi_align`, ...) remain absent then, and raise an error when called.  Where the two builds fit,
this is a plain import.
"""

import importlib
import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library = None  # holds the declarations: torch drops them with the object


def import_torchvision():
    """Import and return torchvision; where its compiled part does not fit torch, declare its missing operators first.

    `torchvision.transforms.v2` is imported too, as an attribute of the result.
    Raises ImportError where torch or torchvision is not installed; any other error of the import is passed on.
    """
    try:
        package = importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        raise ImportError(f"{error.name} is not installed: pip install torch torchvision", name=error.name) from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        _declare_operators()
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # left incomplete by the failed import
        package = importlib.import_module("torchvision")
    importlib.import_module("torchvision.transforms.v2")
    return package


def _declare_operators():
    global _library
    import torch  # here: where it is absent, `import_torchvision` raises an error that says so

    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        _library.define(schema)


torchvision = import_torchvision()
