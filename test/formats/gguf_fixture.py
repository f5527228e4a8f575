"""Writes gguf-all-types.json: a GGUF file by the reference library, and what its tensors decode to.

    python gguf_fixture.py        needs gguf and numpy
"""

import base64
import json
import tempfile
from pathlib import Path

import gguf
import numpy as np

here = Path(__file__).parent
random = np.random.default_rng(3)
scales = {  # byte offsets of float16 scales, which random bytes would make infinite
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}

path = Path(tempfile.mkdtemp()) / "fixture.gguf"
writer = gguf.GGUFWriter(path, "test")
writer.add_uint8("n.uint8", 200)
writer.add_int8("n.int8", -100)
writer.add_uint16("n.uint16", 60000)
writer.add_int16("n.int16", -30000)
writer.add_uint32("n.uint32", 4_000_000_000)
writer.add_int32("n.int32", -2_000_000_000)
writer.add_float32("n.float32", 1e-5)
writer.add_uint64("n.uint64", 2**63 + 1)
writer.add_int64("n.int64", -(2**62))
writer.add_float64("n.float64", 1e-300)
writer.add_bool("n.bool", True)
writer.add_string("s", "na\u00efve \u2581")
writer.add_array("a.strings", ["a", "", "\u00e9"])
writer.add_array("a.ints", [1, -2, 3])
writer.add_array("a.floats", [0.5, -1.25])
writer.add_array("a.bools", [True, False])
writer.add_array("a.arrays", [[1, 2], [3]])

values = {}
plain = random.standard_normal((2, 3)).astype(np.float32)
writer.add_tensor("plain.F32", plain)
values["plain.F32"] = plain
half = random.standard_normal((3, 2)).astype(np.float16)
writer.add_tensor("plain.F16", half)
values["plain.F16"] = half.astype(np.float32)
brain = gguf.quants.quantize(plain, gguf.GGMLQuantizationType.BF16)
writer.add_tensor("plain.BF16", brain, raw_dtype=gguf.GGMLQuantizationType.BF16)
values["plain.BF16"] = gguf.quants.dequantize(brain, gguf.GGMLQuantizationType.BF16)
for name, offsets in scales.items():
    kind = gguf.GGMLQuantizationType[name]
    size, length = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (2, length), dtype=np.uint8)
    for offset in offsets:
        blocks[:, offset : offset + 2] = (random.standard_normal((2, 1)) / 64).astype(np.float16).view(np.uint8)
    writer.add_tensor(f"blocks.{name}", blocks, raw_dtype=kind)
    values[f"blocks.{name}"] = gguf.quants.dequantize(blocks, kind)
    assert values[f"blocks.{name}"].shape == (2, size) and np.isfinite(values[f"blocks.{name}"]).all()
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def text(data):
    return base64.b64encode(data).decode()


json_text = json.dumps(
    {"bytes": text(path.read_bytes()), "values": {k: text(v.astype("<f4").tobytes()) for k, v in values.items()}},
    indent=2,
)
(here / "gguf-all-types.json").write_text(json_text + "\n")
