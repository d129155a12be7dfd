"""Fashion-MNIST and its minibatches."""

from .batches import Batches, load_data_fashion_mnist
from .fashion_mnist import CLASSES, DataError

__all__ = ["CLASSES", "Batches", "DataError", "load_data_fashion_mnist"]
