"""torchvision, made to import beside a CPU build of torch: `from cs231n.pytorch_vision import torchvision`.

A torchvision wheel is compiled for one build of torch. Beside another (a CUDA torchvision next to a CPU torch) its
operators do not load, and `import torchvision` then fails on two of them, for which it registers fake kernels all the
same: "operator torchvision::nms does not exist". Data sets, transforms and models use none of these operators. So the
two are declared here, by schema alone, and the import is tried again. On a pair that fits, this is a plain import. The
operators themselves (`torchvision.ops.nms`, `roi_align`, ...) stay absent on the other, and say so when called.
"""

import importlib
import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library = None  # holds the declarations: torch drops them with the object


def import_torchvision():
    """Import and return torchvision, declaring its missing operators first where its compiled part does not fit torch.

    `torchvision.transforms.v2` is imported too, so that all a training loop needs is reached through the result.
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
            del sys.modules[name]  # what the failed import left half done
        package = importlib.import_module("torchvision")
    importlib.import_module("torchvision.transforms.v2")
    return package


def _declare_operators():
    global _library
    import torch  # here: `import_torchvision` says so where it is not installed

    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        _library.define(schema)


torchvision = import_torchvision()
