"""Small data sets in published layouts, written by hand."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("cat", "dog", "empty class")


def encoded(row: int, kind: str = "PNG") -> bytes:
    """Return the bytes of an image that is different for each row."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(row).integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def image_files(root: Path, paths: Iterable[str]) -> None:
    for row, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(row))


def huggingface(label: Mapping[str, Any] = {"names": list(NAMES), "_type": "ClassLabel"}) -> dict[bytes, bytes]:
    """Return the metadata that Hugging Face's `datasets` puts into a schema of image and label."""
    return {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label}}}).encode()}


def arrow_table(rows: Iterable[int], *, names: bool = True, metadata: dict[bytes, bytes] | None = None):
    """Return a table of images with their bytes in it, as `datasets` does: a struct of bytes and path, labels row % 2."""
    import pyarrow as pa

    rows = list(rows)
    images = [{"bytes": encoded(row), "path": f"{row}.png" if names else None} for row in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array([row % 2 for row in rows], pa.int64())})
    return table.replace_schema_metadata(huggingface() if metadata is None else metadata)


def write_parquet(file: Path, rows: Iterable[int], *, row_group_size: int = 3, **options: Any) -> None:
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow_table(rows, **options), file, row_group_size=row_group_size)


def write_saved(folder: Path, rows: Iterable[int], split: str | None = None) -> None:
    """Write a folder as `Dataset.save_to_disk` does, in two files, and one of its caches beside them."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    rows = list(rows)
    parts = {f"data-0000{place}-of-00002.arrow": rows[place * len(rows) // 2:(place + 1) * len(rows) // 2] for place in (0, 1)}
    for name, own in {**parts, "cache-0123.arrow": rows[:1]}.items():
        table = arrow_table(own)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in parts], "_split": split}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": json.loads(huggingface()[b"huggingface"])["info"]}))
