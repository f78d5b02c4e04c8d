"""The layers, nets, optimizers and data of a deep-learning course, from scratch in NumPy."""

import os

# OpenBLAS, which computes NumPy's matrix products, reads this once, as NumPy is imported.  Its idle threads then sleep
# after 2^16 cycles; by default they spin for about 20 ms, on a core that the next layer needs.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")

from cs231n.cnn_model import ThreeLayerConvNet
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.trainer import Solver
from cs231n.utils import get_cifar10_data

__all__ = ["FullyConnectedNet", "Solver", "ThreeLayerConvNet", "get_cifar10_data"]
