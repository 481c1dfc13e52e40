"""Language models, used by bench, judges and trainers alike.

Importing a name from here imports torch; `dadpo_bench` itself does not.
"""

from dadpo_bench.models.chat import ChatTokenizer, chat_tokenizer
from dadpo_bench.models.generation import SAMPLER_VERSION, batches, continuations, respond
from dadpo_bench.models.loading import find, load_model, quiet_transformers, tokenizer_key, weights_key
from dadpo_bench.models.logprobs import (
    SCORER_VERSION,
    Head,
    by_chunk,
    sequence_log_probs,
    token_log_probs,
    token_scores,
)
from dadpo_bench.models.precision import Precision, device, frozen, training
from dadpo_bench.models.stream import Branching, Stream, batches_by_tokens, hidden_states, longest_sequence, streaming

__all__ = [
    "SAMPLER_VERSION",
    "SCORER_VERSION",
    "Branching",
    "ChatTokenizer",
    "Head",
    "Precision",
    "Stream",
    "batches",
    "batches_by_tokens",
    "by_chunk",
    "chat_tokenizer",
    "continuations",
    "device",
    "find",
    "frozen",
    "hidden_states",
    "load_model",
    "longest_sequence",
    "quiet_transformers",
    "respond",
    "sequence_log_probs",
    "streaming",
    "token_log_probs",
    "token_scores",
    "tokenizer_key",
    "training",
    "weights_key",
]
