"""How long a conversion takes, beside a plain copy, and how much memory it needs.

A checkpoint of 0.2 billion random parameters is made first; it takes 1.5 GB of disk for a while.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from linnix_plugin_gguf import convert
from linnix_plugin_gguf.reading import read_model
from linnix_plugin_gguf.reference import reference_logits
from linnix_plugin_gguf.testing import tiny_checkpoint
from linnix_plugin_gguf.writing import write_gguf
from linnix_plugin_models import ConversionRequest


class Peak:
    """The most memory that was not that of mapped files, in MB."""

    def __init__(self) -> None:
        self.mb = 0.0

    def __call__(self, *_: object) -> None:
        status = Path("/proc/self/status").read_text()
        kb = int(status.partition("RssAnon:")[2].split()[0])
        self.mb = max(self.mb, kb / 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        source = tiny_checkpoint(
            folder / "source", "qwen2", hidden=2048, heads=16, kv_heads=4, layers=asked.layers
        )
        size = (source / "model.safetensors").stat().st_size / 1e6
        print(f"{size:.0f} MB of BF16, {asked.layers} layers")
        began = time.perf_counter()
        shutil.copy(source / "model.safetensors", folder / "copy")
        print(f"cp: {size / (time.perf_counter() - began):.0f} MB/s")
        (folder / "copy").unlink()
        model = read_model(source)
        for dtype in ("BF16", "F16", "F32"):
            peak, before = Peak(), Peak()
            before()
            began = time.perf_counter()
            write_gguf(model, folder / "made", dtype, name="x", progress=peak)
            seconds = time.perf_counter() - began
            more = max(0, peak.mb - before.mb)
            print(f"writing {dtype}: {size / seconds:.0f} MB/s, {more:.0f} MB of memory")
            (folder / "made").unlink()
        began = time.perf_counter()
        reference_logits(model, list(range(16)))
        print(f"forward pass of 16 tokens: {time.perf_counter() - began:.1f} s")
        for quantization in ("F16", "Q4_K_M"):
            (folder / "work").mkdir()
            began = time.perf_counter()
            convert(
                ConversionRequest(
                    model_id="x", source=source, target=folder / "made", work=folder / "work",
                    quantization=quantization,
                )
            )  # fmt: skip
            print(f"whole conversion to {quantization}: {time.perf_counter() - began:.1f} s")
            shutil.rmtree(folder / "work")
            (folder / "made").unlink()


if __name__ == "__main__":
    main()
