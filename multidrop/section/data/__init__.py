"""Fashion-MNIST, and minibatches of it and of other data."""

from .fashion_mnist import CLASSES, DataError, load_data_fashion_mnist, load_fashion_mnist
from .image_set import ImageSet
from .minibatches import Batches, batches

__all__ = [
    "CLASSES",
    "Batches",
    "DataError",
    "ImageSet",
    "batches",
    "load_data_fashion_mnist",
    "load_fashion_mnist",
]
