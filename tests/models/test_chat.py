"""Token ids from chat templates: prompt a strict prefix, one end-of-turn, text always data."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from dadpo_bench.errors import UserError
from dadpo_bench.models.chat import ChatTokenizer
from dadpo_bench.models.loading import load_tokenizer
from dadpo_bench.recipe import load_recipe
from dadpo_bench.types import Finish, Message, Prompt, Reply

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
VICUNA = load_recipe("vicuna-7b-pruned20").teacher.chat_template or ""

# name: (template, control tokens, bos, eos, end of turn)
FAMILIES: dict[str, tuple[str, list[str], str | None, str, str]] = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], None, "<|im_end|>", "<|im_end|>"),
    "llama-3": (
        LLAMA3,
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"],
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": (
        GEMMA,
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<pad>"],
        "<bos>",
        "<eos>",
        "<end_of_turn>",
    ),
    "llama-2": (LLAMA2, ["<s>", "</s>"], "<s>", "</s>", "</s>"),
    "mistral": (MISTRAL, ["<s>", "</s>"], "<s>", "</s>", "</s>"),
    "vicuna": (VICUNA, ["<s>", "</s>"], "<s>", "</s>", "</s>"),
}


def build(family: str) -> ChatTokenizer:
    template, control, bos, eos, _ = FAMILIES[family]
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=320,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["What is the capital of France? The capital is Paris."], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token=eos)
    tokenizer.chat_template = template
    return ChatTokenizer(tokenizer)


def token(tokenizer: ChatTokenizer, text: str) -> int:
    return int(tokenizer.raw.convert_tokens_to_ids(text))


def asked(text: str) -> Sequence[Message]:
    return [Message(role="user", content=text)]


@pytest.mark.parametrize("family", FAMILIES)
def test_end_of_turn_is_the_token_the_template_puts_behind_a_reply(family: str) -> None:
    tokenizer = build(family)
    assert tokenizer.end_of_turn_id == token(tokenizer, FAMILIES[family][4])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_that_ended_has_one_end_of_turn_and_a_cut_one_has_none(family: str) -> None:
    tokenizer = build(family)
    ended = tokenizer.reply_ids(Reply(text="Paris."), sampled=False)
    cut = tokenizer.reply_ids(Reply(text="Paris.", finish=Finish.length), sampled=False)
    assert ended == [*cut, tokenizer.end_of_turn_id]
    assert tokenizer.end_of_turn_id not in cut


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_begins_with_at_most_one_bos(family: str) -> None:
    tokenizer = build(family)
    bos = FAMILIES[family][2]
    ids = tokenizer.prompt_ids(asked("What is the capital of France?"))
    assert ids.count(token(tokenizer, bos)) == 1 if bos else ids[0] == token(tokenizer, "<|im_start|>")


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_reply_joined_read_as_the_template_renders_them(family: str) -> None:
    tokenizer = build(family)
    prompt = Prompt(id="1", turns=("What is the capital of France?",))
    branching = tokenizer.branching(prompt, [Reply(text="Paris.")], sampled=False)
    joined = tokenizer.raw.decode([*branching.prompt, *branching.continuations[0]])
    rendered = tokenizer.raw.apply_chat_template(
        [*(m.model_dump() for m in prompt.messages()), {"role": "assistant", "content": "Paris."}], tokenize=False
    )
    assert joined.replace(" ", "") == rendered.rstrip("\n").replace(" ", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_in_a_message_stay_text(family: str) -> None:
    tokenizer = build(family)
    attack = "".join(FAMILIES[family][1])
    plain, attacked = (tokenizer.prompt_ids(asked(text)) for text in ("Hi", f"Hi {attack} there"))
    for control in FAMILIES[family][1]:
        assert attacked.count(token(tokenizer, control)) == plain.count(token(tokenizer, control))
    reply = tokenizer.reply_ids(Reply(text=attack, finish=Finish.length), sampled=False)
    assert not set(reply) & {token(tokenizer, control) for control in FAMILIES[family][1]}


def test_sampled_ids_are_used_as_they_are() -> None:
    tokenizer = build("chatml")
    reply = Reply(text="Paris.", token_ids=(7, 8, 9))
    assert tokenizer.reply_ids(reply, sampled=True) == [7, 8, 9]
    assert tokenizer.reply_ids(reply, sampled=False) != [7, 8, 9]


def test_an_empty_reply_still_has_a_token_to_train() -> None:
    tokenizer = build("chatml")
    assert tokenizer.reply_ids(Reply(text="", finish=Finish.length), sampled=True) == [tokenizer.end_of_turn_id]


def test_later_turns_see_the_replies_between() -> None:
    prompt = Prompt(id="1", turns=("One?", "Two?"), system="Be brief.")
    assert [m.role for m in prompt.messages(("Yes.",))] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_long_prompt_the_beginning_of_the_question_goes_and_the_template_stays(family: str) -> None:
    whole = build(family)
    question = "What is the capital of France? The capital is Paris. " * 4 + "What is it?"
    longest = len(whole.prompt_ids(asked("The capital is Paris. What is it?")))
    cut = ChatTokenizer(whole.raw, longest).prompt_ids(asked(question))
    assert cut in [whole.prompt_ids(asked(question[start:])) for start in range(len(question))]
    assert longest - 3 <= len(cut) <= longest


def test_of_a_long_conversation_the_oldest_exchange_goes_and_the_system_text_stays() -> None:
    whole = build("chatml")
    prompt = Prompt(id="1", turns=("One? " * 20, "Two?", "Three?"), system="Be brief.")
    conversation = prompt.messages(("Yes.", "No."))
    tokenizer = ChatTokenizer(whole.raw, longest=len(whole.prompt_ids(conversation)) - 1)
    assert tokenizer.too_long(conversation)
    assert tokenizer.prompt_ids(conversation) == whole.prompt_ids([conversation[0], *conversation[3:]])


def test_a_system_text_that_leaves_no_room_is_cut_to_its_end() -> None:
    whole = build("chatml")
    conversation = Prompt(id="1", turns=("One?",), system="Be brief. " * 20).messages()
    without = whole.prompt_ids([conversation[0], Message(role="user", content="")])
    assert ChatTokenizer(whole.raw, longest=20).prompt_ids(conversation) == without[-20:]


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    tokenizer = build("chatml").raw
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(tmp_path)


def test_a_template_that_cannot_render_is_refused() -> None:
    tokenizer = build("chatml").raw
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(UserError, match="cannot render"):
        ChatTokenizer(tokenizer)
