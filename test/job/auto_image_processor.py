"""Prints the pixel values and logits that Transformers makes of images: FOLDER PICTURE FOLDER PICTURE ..."""

import json
import sys

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


def seen(folder, picture):
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    values = processor(images=Image.open(picture), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=values).logits
    return {
        "shape": list(values.shape),
        "values": values.ravel().tolist(),
        "logits": logits.ravel().tolist(),
    }


arguments = sys.argv[1:]
print(json.dumps([seen(*pair) for pair in zip(arguments[::2], arguments[1::2])]))
