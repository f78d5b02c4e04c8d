"""The layers, nets, optimizers and data of a deep-learning course, from scratch in NumPy."""

from cs231n.cnn_model import ThreeLayerConvNet
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.trainer import Solver
from cs231n.utils import get_cifar10_data

__all__ = ["FullyConnectedNet", "Solver", "ThreeLayerConvNet", "get_cifar10_data"]
