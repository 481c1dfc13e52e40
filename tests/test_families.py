"""Families of models by their names."""

import pytest

from dadpo_bench.families import families


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", {"qwen"}),
        ("lmsys/vicuna-7b-v1.5", {"llama"}),
        ("meta-llama/Meta-Llama-3-8B", {"llama"}),
        ("gpt-4o-2024-08-06", {"gpt"}),
        ("o3-mini", {"gpt"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"deepseek", "qwen"}),
        ("smollm2-135m-instruct-q4_1", {"smollm"}),
        ("my-model", set()),
        ("", set()),
    ],
)
def test_a_name_tells_the_family(name: str, found: set[str]) -> None:
    assert families(name) == found
