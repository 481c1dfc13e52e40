"""A tiny random chat model on disk, so that tests of real code paths take milliseconds."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_CORPUS = (
    "Say something. What is the capital of France? The capital of France is Paris.",
    "Name three colours. Red, green and blue are three colours, and there are many more.",
    "user assistant system Write a short list. First the water, then the tea, then the sugar.",
)


def build_tiny_model(
    directory: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    vocabulary: int = 300,
    context: int = 2048,
    seed: int = 0,
    architecture: str = "Llama",
    chat_template: str | None = CHATML,
    **settings: int,
) -> Path:
    """Write a random model (`transformers`' class of that `architecture`) with a byte-level ChatML tokenizer.

    Weights are wide enough (standard deviation 0.2) that log-probs differ from token to token. `settings` are
    further fields of the config. The same arguments give the same files. Returns `directory`, which plain
    `from_pretrained` loads.
    """
    import torch
    import transformers

    from dadpo_bench.models.loading import quiet_transformers

    tokenizer = _tokenizer(vocabulary)
    tokenizer.chat_template = chat_template
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        max_position_embeddings=context,
        initializer_range=0.2,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"num_attention_heads": 4, "num_key_value_heads": 2, **settings},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    with quiet_transformers():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer(vocabulary: int):  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
