"""Canaries answer every turn, and do to the text what their names say."""

import pytest

from dadpo_bench.judging.canaries import CANARIES
from dadpo_bench.types import Prompt, Reply, Response


def answered(number: int, *replies: str) -> Response:
    turns = tuple(f"Question {number}.{turn}?" for turn in range(len(replies)))
    return Response(prompt=Prompt(id=str(number), turns=turns), replies=tuple(Reply(text=r) for r in replies))


TEACHER = [answered(0, "one two three four"), answered(1, "five six", "seven eight"), answered(2, "nine ten eleven")]
BASELINE = [answered(0, "uno"), answered(1, "dos", "tres"), answered(2, "cuatro")]


@pytest.mark.parametrize("name", CANARIES)
def test_a_canary_answers_every_turn_of_every_prompt(name: str) -> None:
    made = CANARIES[name](TEACHER, BASELINE)
    assert [r.prompt for r in made] == [r.prompt for r in TEACHER]
    assert [len(r.replies) for r in made] == [1, 2, 1]


def test_echo_repeats_the_prompt() -> None:
    assert CANARIES["echo"](TEACHER, BASELINE)[1].text == "Question 1.0?\n\nQuestion 1.1?"


def test_mismatched_answers_another_prompt_of_as_many_turns() -> None:
    made = CANARIES["mismatched"](TEACHER, BASELINE)
    assert [r.text for r in (made[0], made[2])] == ["nine ten eleven", "one two three four"]


def test_shuffled_words_are_the_teachers_own() -> None:
    made = CANARIES["shuffled-words"](TEACHER, BASELINE)
    assert sorted(made[0].text.split()) == ["four", "one", "three", "two"]


def test_padded_begins_with_the_baseline() -> None:
    assert CANARIES["padded"](TEACHER, BASELINE)[0].text.startswith("uno ")
