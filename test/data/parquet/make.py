"""Writes the Parquet files of this folder with pyarrow; the test knows their content by the same formulas."""

import os

import pyarrow as pa
import pyarrow.parquet as pq

folder = os.path.dirname(os.path.abspath(__file__))
count = 300
rows = range(count)
table = pa.table(
    {
        "text": pa.array([None if i % 7 == 3 else f"row {i} ä" for i in rows], pa.string()),
        "label": pa.array([i % 5 for i in rows], pa.int64()),
        "small": pa.array([i - 100 for i in rows], pa.int32()),
        "score": pa.array([i / 8 for i in rows], pa.float64()),
        "flag": pa.array([i % 3 == 0 for i in rows], pa.bool_()),
        "tags": pa.array([[f"t{j}" for j in range(i % 4)] for i in rows], pa.list_(pa.string())),
        "image": pa.array(
            [{"bytes": bytes([i % 256, 255, 0]), "path": f"{i}.png"} for i in rows],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
    }
)

for name, options in {
    "snappy": {"compression": "snappy", "row_group_size": 128},
    "zstd-v2": {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 512},
    "gzip": {"compression": "gzip"},
    "plain": {"compression": "none", "use_dictionary": False},
    "lz4": {"compression": "lz4"},
    "brotli": {"compression": "brotli"},
    "delta": {
        "compression": "snappy",
        "use_dictionary": False,
        "column_encoding": {
            "small": "DELTA_BINARY_PACKED",
            "label": "DELTA_BINARY_PACKED",
            "score": "BYTE_STREAM_SPLIT",
            "text": "DELTA_LENGTH_BYTE_ARRAY",
        },
    },
}.items():
    pq.write_table(table, os.path.join(folder, f"{name}.parquet"), **options)
