"""Writes images and what Pillow 11.3 makes of them in other sizes; the tests know the images by the same formula."""

import json
import os

import numpy as np
from PIL import Image

folder = os.path.dirname(os.path.abspath(__file__))
height, width = 9, 7
color = ((np.arange(height * width * 3) * 37 + np.arange(height * width * 3) ** 2 % 91) % 256).astype(np.uint8)
color = color.reshape(height, width, 3)
filters = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

cases = []
for number, name in enumerate(filters):
    for target in [(4, 5), (13, 11), (9, 3), (2, 7)]:
        resized = Image.fromarray(color).resize((target[1], target[0]), resample=number)
        cases.append({"resample": name, "height": target[0], "width": target[1], "data": np.asarray(resized).ravel().tolist()})
gray = np.asarray(Image.fromarray(color).convert("L")).ravel().tolist()
with open(os.path.join(folder, "pillow.json"), "w") as file:
    json.dump({"gray": gray, "cases": cases}, file, separators=(",", ":"))

for part, kind in [("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")]:
    place = os.path.join(folder, "folder", part, kind)
    os.makedirs(place, exist_ok=True)
    Image.fromarray(color).save(os.path.join(place, "color.png"))
    Image.fromarray(color[:, :, 0]).save(os.path.join(place, "gray.png"))
alpha = np.dstack([color, np.full((height, width), 128, np.uint8)])
Image.fromarray(alpha).save(os.path.join(folder, "alpha.png"))
palette = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
palette.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
palette.save(os.path.join(folder, "palette.png"))
