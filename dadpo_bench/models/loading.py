"""From a model's name in a recipe to a directory, a content hash, weights and a tokenizer."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.models.embedded import NAME, converted, embedded_teacher
from dadpo_bench.models.precision import Precision, device
from dadpo_bench.places import cache_dir
from dadpo_bench.types import content_key

# Neither changes what a model computes.
_LABELS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures", "use_cache")


def find(model: str) -> Path:
    """The local directory of `model`: the embedded teacher, a directory, or a Hugging Face id.

    Raises `UserError` where there is no such directory, or where the hub cannot be reached.
    """
    if model == NAME:
        return embedded_teacher()
    path = Path(model).expanduser()
    if not path.is_dir():
        if model.count("/") != 1 or model.startswith((".", "/", "~")):
            raise UserError(f"no model directory '{model}'")
        path = _download(model)
    if not (path / "config.json").is_file():
        raise UserError(f"model {model} has no config.json")
    if not list(path.glob("*.safetensors")):
        raise UserError(
            f"model {model} has no *.safetensors weights; convert it (load it and call "
            "save_pretrained) and name that directory"
        )
    return path


def find_tokenizer(model: str) -> Path:
    """The local directory of a model's tokenizer; nobody needs its weights. Of the hub the small files are fetched.

    Raises `UserError` where it cannot be had.
    """
    path = embedded_teacher() if model == NAME else Path(model).expanduser()
    if not path.is_dir():
        if model.count("/") != 1 or model.startswith((".", "/", "~")):
            raise UserError(f"no tokenizer directory '{model}'")
        path = _download(model, weights=False)
    if not (path / "config.json").is_file():
        raise UserError(f"tokenizer {model} has no config.json beside it; name a directory with the model's own")
    return path


def tokenizer_identity(model: str) -> str:
    """As `identity`, of a model's tokenizer and chat template alone."""
    path = Path(model).expanduser()
    if not (path / "config.json").is_file():
        return model
    return content_key("tokenizer files", _tokenizer_files(path), _chat_template(path))


def identity(model: str) -> str:
    """What stands for a model in a protocol's key: a directory's content; elsewhere the name, which decides it."""
    path = Path(model).expanduser()
    return weights_key(path) if (path / "config.json").is_file() else model


def at_hand(model: str) -> bool:
    """Whether `find` would neither convert nor download anything."""
    if model == NAME:
        return converted() is not None
    return Path(model).expanduser().is_dir()


def _download(model: str, *, weights: bool = True) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.model", "*.jinja", "*.txt", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises many unrelated types
        raise UserError(
            f"cannot fetch '{model}' from the Hugging Face hub ({_reason(error)}); "
            "name a local directory, or download it first with `hf download`"
        ) from error


def weights_key(directory: Path) -> str:
    """Content hash of all that decides what a model answers: weights, config, tokenizer, chat template.

    Hashing gigabytes happens once: file hashes are cached by path, size and modification time.
    """
    weights = {path.name: _file_sha256(path) for path in sorted(directory.glob("*.safetensors"))}
    return content_key(
        "model", weights, config_of(directory), _ends(directory), _tokenizer_files(directory), _chat_template(directory)
    )


def find_config(model: str) -> Path:
    """The folder of a model's config.json, without its weights; from the hub that file alone is fetched.

    Raises `UserError` where it cannot be had.
    """
    path = embedded_teacher() if model == NAME else Path(model).expanduser()
    if path.is_dir() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        if not (path / "config.json").is_file():
            raise UserError(f"no config.json in model directory '{model}'")
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging as hub

    hub.set_verbosity_error()  # type: ignore[no-untyped-call]  # it tells of every try
    try:
        return Path(hf_hub_download(model, "config.json")).parent
    except Exception as error:  # the hub's client raises many unrelated types
        raise UserError(
            f"cannot fetch the config.json of '{model}' from the Hugging Face hub ({_reason(error)}); "
            "give one by --config teacher=PATH or student=PATH (examples/configs has those of the paper's models)"
        ) from error


def _reason(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 160 else f"{line[:160].rsplit(' ', 1)[0]} …"


def config_of(directory: Path) -> dict[str, Any]:
    """The model's config without labels that do not change what it computes."""
    with reading(directory, "config"):
        config = json.loads((directory / "config.json").read_text())
    return {key: value for key, value in config.items() if key not in _LABELS}


def vocabulary_rows(directory: Path) -> int:
    """Rows of the model's embedding, from its config alone; a padded vocabulary has more than the tokenizer."""
    from transformers import AutoConfig

    with reading(directory, "config"):
        return int(AutoConfig.from_pretrained(directory).get_text_config().vocab_size)


def _ends(directory: Path) -> Any:
    """What `load_model` keeps of a model's own generation defaults."""
    path = directory / "generation_config.json"
    with reading(directory, "generation config"):
        return json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None


def _tokenizer_files(directory: Path) -> list[str]:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
    return [_file_sha256(path) for name in names if (path := directory / name).is_file()]


def tokenizer_key(directory: Path) -> str:
    """Equal for two models whose tokenizers give the same ids for the same text, whatever files they came in."""
    return _tokenizer_key(str(directory), tuple(_tokenizer_files(directory)))


@lru_cache(maxsize=64)
def _tokenizer_key(directory: str, _files: tuple[str, ...]) -> str:
    from transformers import AutoTokenizer

    with reading(Path(directory), "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(directory)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return content_key("tokenizer", type(tokenizer).__name__, tokenizer.get_vocab())
    # Special tokens come from the chat template alone, so the post-processor that adds them decides nothing.
    parts = json.loads(backend.to_str())
    return content_key("tokenizer", [parts[name] for name in ("model", "added_tokens", "normalizer", "pre_tokenizer")])


def _chat_template(directory: Path) -> str:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    settings = directory / "tokenizer_config.json"
    return str(json.loads(settings.read_text()).get("chat_template", "")) if settings.is_file() else ""


def _file_sha256(path: Path) -> str:
    real = path.resolve()
    stat = real.stat()
    identity = content_key("file", str(real), stat.st_size, stat.st_mtime_ns)
    note = cache_dir() / "sha256" / identity
    if note.is_file() and len(cached := note.read_text()) == 64:
        return cached
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(digest)
    return digest


def load_tokenizer(directory: Path, chat_template: str | None = None) -> Any:
    """The tokenizer, with the recipe's chat template where it names one.

    Raises `UserError` where neither has a chat template: guessing one would train another model.
    """
    from transformers import AutoTokenizer

    with reading(directory, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(directory)
    if chat_template:
        tokenizer.chat_template = chat_template
    if not tokenizer.chat_template:
        raise UserError(
            f"{directory.name} has no chat template; give one in the recipe (chat_template: …) or use a chat model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(directory: Path, precision: Precision) -> Any:
    """The causal language model in evaluation mode, on this machine's device."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    with quiet_transformers(), reading(directory, "model"):
        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=precision.weights)
    # `generate` fills what it is not told from a model's own defaults (repetition penalty, suppressed tokens, …):
    # other samples than the recipe asks for, and unseen by any key.
    ends = getattr(model.generation_config, "eos_token_id", None)
    model.generation_config = GenerationConfig(eos_token_id=ends)  # type: ignore[no-untyped-call]
    return model.to(device()).eval()


def load_reward_model(directory: Path, precision: Precision) -> Any:
    """The reward model, a sequence classifier with one label, in evaluation mode on this machine's device.

    Raises `UserError` where the weights lack a part of it, which transformers would make up at random.
    """
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers(), reading(directory, "reward model"):
        model, found = AutoModelForSequenceClassification.from_pretrained(
            directory,
            dtype=precision.weights,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if lacking := sorted(found["missing_keys"]):
        raise UserError(
            f"{directory.name} is no reward model: its weights have no {lacking[0]}; name one that has a head"
        )
    return model.to(device()).eval()


def check_one_label(directory: Path) -> None:
    """Raises `UserError` where the config is not that of a classifier with one label."""
    from transformers import AutoConfig

    with reading(directory, "config"):
        labels = AutoConfig.from_pretrained(directory, trust_remote_code=False).num_labels
    if labels != 1:
        raise UserError(
            f"{directory.name} is no reward model: its config.json tells of {labels} labels where a rating takes one "
            '(id2label: {"0": …}); name one that was trained with num_labels=1'
        )


@contextmanager
def reading(directory: Path, what: str) -> Iterator[None]:
    """A file that is cut off, a Git LFS pointer or of an unknown kind is told in one line (`UserError`)."""
    try:
        yield
    except (UserError, RuntimeError, MemoryError):  # a machine too small for the model is another matter
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise many unrelated types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot read the {what} of {directory} ({reason[:200]}); download or convert the model again"
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the library's own progress bars and remarks, and accelerate's: the bench has its own."""
    from transformers.utils import logging as library

    loggers = [logging.getLogger(name) for name in ("transformers", "accelerate")]
    levels, bars = [logger.level for logger in loggers], library.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            library.enable_progress_bar()  # type: ignore[no-untyped-call]
