"""Makes the part of Fashion-MNIST that comes with the package: the first 600 training and 100 test images of each
class, in the order of the full set.

    python tools/make_mini_fashion_mnist.py FOLDER_OF_THE_FULL_SET

Prints the digests for `multidrop/section/data/fashion_mnist.py`.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

from multidrop.section.data.fashion_mnist import CLASSES, FILES, FULL, MINI_FOLDER, encode_idx, read_set


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices of the first `count` examples of each class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(len(CLASSES))]))


def main(folder: Path) -> None:
    full = read_set(folder, FULL)
    arrays = []
    for images, labels, count in ((*full.train, 600), (*full.test, 100)):
        chosen = first_of_each_class(labels, count)
        arrays += [images[chosen], labels[chosen]]
    for name, array in zip(FILES, arrays, strict=True):
        contents = encode_idx(array)
        with open(MINI_FOLDER / f"{name}.gz", "wb") as file:
            # Without name and time in the header, so that the file depends only on its contents.
            file.write(gzip.compress(contents, compresslevel=9, mtime=0))
        print(f'"{name}": "{hashlib.sha256(contents).hexdigest()}",')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
