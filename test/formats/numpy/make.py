"""Writes the NumPy files of this folder; the tests know their content by the same formulas."""

import os

import numpy as np

folder = os.path.dirname(os.path.abspath(__file__))
arrays = {
    "train_images": (np.arange(3 * 4 * 5) % 251).astype(np.uint8).reshape(3, 4, 5),
    "train_labels": np.array([[0], [1], [1]], dtype=np.uint8),
    "val_images": np.full((2, 4, 5), 7, dtype=np.uint8),
    "val_labels": np.array([[1], [0]], dtype=np.uint8),
    "weights": np.linspace(-1, 1, 7, dtype=np.float32),
    "ids": np.array([-5, 2**40], dtype=np.int64),
    "half": np.array([0.5, -2], dtype=np.float16),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5),
}
np.savez(os.path.join(folder, "stored.npz"), **arrays)
np.savez_compressed(os.path.join(folder, "deflated.npz"), **arrays)
parts = {name: array for name, array in arrays.items() if "_" in name}
np.savez(os.path.join(folder, "parts.npz"), **parts)
np.save(os.path.join(folder, "big-endian.npy"), np.arange(3, dtype=">i4"))
np.save(os.path.join(folder, "columns-first.npy"), np.asfortranarray(np.zeros((2, 3))))
np.save(os.path.join(folder, "objects.npy"), np.array([{"a": 1}], dtype=object), allow_pickle=True)
