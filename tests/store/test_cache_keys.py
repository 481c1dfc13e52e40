"""What is kept is found again under exactly what decided it, and under nothing else."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from dadpo_bench.engine import LocalEngine
from dadpo_bench.models import weights_key
from dadpo_bench.progress import silent
from dadpo_bench.recipe import Evaluation, Prompts, Prune, Recipe
from dadpo_bench.stages import responses
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import collect_responses
from dadpo_bench.store import open_store
from dadpo_bench.types import Prompt, Sampling, Value, content_key
from tests.tiny import CHATML
from trainers.adapters import LoRA
from trainers.config import TrainConfig
from trainers.dadpo import DaDPOConfig
from trainers.distillm2 import DistiLLM2Config
from trainers.dpkd import DPKDConfig
from trainers.dpo import DPOConfig
from trainers.kd import KDConfig
from trainers.on_policy_kd import OnPolicyKDConfig

PROMPTS = tuple(Prompt(id=name, turns=(name,)) for name in ("Tea?", "Red or blue?", "Say three."))
SAMPLING = Sampling(max_new_tokens=6)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(open_store(str(tmp_path / "x.sqlite3")), LocalEngine(), silent())


def local(directory: Path, chat_template: str | None = None) -> LocalModel:
    return LocalModel("m", directory, weights_key(directory), chat_template)


@pytest.fixture
def teacher(tiny_models: tuple[Path, Path]) -> LocalModel:
    return local(tiny_models[0])


def keys(bench: Bench, model: LocalModel, prompts: tuple[Prompt, ...] = PROMPTS, seed: int = 0, **sampling: float):  # type: ignore[no-untyped-def]
    settings = SAMPLING.model_copy(update=sampling)
    return {stored.key for stored in collect_responses(bench, model, prompts, settings, seed, "test")}


def test_the_same_question_is_asked_once(bench: Bench, teacher: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keys(bench, teacher)
    monkeypatch.setattr(responses, "respond", None)
    assert keys(bench, teacher) == first
    assert keys(bench, teacher, prompts=PROMPTS[::-1]) == first  # the order of prompts decides nothing


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_p": 0.5}, {"max_new_tokens": 5}, {"batch_size": 2}])
def test_other_sampling_never_gets_the_first_ones_responses(
    bench: Bench, teacher: LocalModel, change: dict[str, float]
) -> None:
    assert not keys(bench, teacher) & keys(bench, teacher, **change)


def test_another_model_never_gets_the_first_ones_responses(bench: Bench, tiny_models: tuple[Path, Path]) -> None:
    first, second = map(local, tiny_models)
    assert not keys(bench, first) & keys(bench, second)


def test_another_template_never_gets_the_first_ones_responses(bench: Bench, teacher: LocalModel) -> None:
    other = local(teacher.directory, CHATML.replace("assistant", "bot"))
    assert not keys(bench, teacher) & keys(bench, other)


def test_another_seed_draws_anew_and_greedy_replies_have_none(bench: Bench, teacher: LocalModel) -> None:
    assert not keys(bench, teacher) & keys(bench, teacher, seed=1)
    assert keys(bench, teacher, temperature=0) == keys(bench, teacher, temperature=0, seed=1)


def test_another_system_message_is_another_prompt(bench: Bench, teacher: LocalModel) -> None:
    told = tuple(p.model_copy(update={"system": "Be brief."}) for p in PROMPTS)
    assert not keys(bench, teacher) & keys(bench, teacher, prompts=told)


def test_a_prompts_label_is_no_part_of_its_key() -> None:
    assert Prompt(id="a", turns=("x",), category="c").key == Prompt(id="b", turns=("x",)).key


def test_two_turns_are_not_one_joined() -> None:
    assert Prompt(id="a", turns=("x", "y")).key != Prompt(id="a", turns=("x\n\ny",)).key


class _Settings(Value):
    rate: float = 1.0


class _SettingsLater(Value):
    rate: float = 1.0
    added: str = "as ever"


def test_a_new_setting_at_its_default_leaves_keys_as_they_were() -> None:
    assert content_key(_SettingsLater(rate=2)) == content_key(_Settings(rate=2))
    assert content_key(_SettingsLater()) == content_key(_Settings(rate=1))
    assert content_key(_SettingsLater(added="else")) != content_key(_Settings())


@pytest.mark.parametrize(
    ("config", "defaults", "version"),
    [
        (Sampling, {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 64, "batch_size": 24}, "SAMPLER_VERSION"),
        (Prune, {"importance": "taylor", "examples": 32, "seed": 0, "groups": 0}, "PROTOCOL_VERSION"),
        (
            Evaluation,
            {"sampling": Sampling(temperature=0), "canary_prompts": 16, "kl_prompts": 16},
            "PROTOCOL_VERSION",
        ),
        (Recipe, {"teacher_sampling": Sampling(), "student_sampling": Sampling()}, "PROTOCOL_VERSION"),
        (
            TrainConfig,
            {
                "learning_rate": 1e-5,
                "epochs": 1,
                "batch_size": 8,
                "warmup": 0.1,
                "weight_decay": 0.0,
                "max_grad_norm": 1.0,
                "micro_batch_tokens": 1536,
                "max_tokens": 2048,
                "gradient_checkpointing": False,
                "lora": None,
                "validations": 2,
                "select": "last",
            },
            "TRAINER_VERSION",
        ),
        (LoRA, {"rank": 16, "alpha": 32, "targets": "all-linear"}, "TRAINER_VERSION"),
        (Prompts, {"train": None, "validation": 0}, "PROTOCOL_VERSION"),
        (DPKDConfig, {"beta": 5.0}, "TRAINER_VERSION"),
        (DistiLLM2Config, {"alpha": 0.1, "student_share": 0.5}, "TRAINER_VERSION"),
        (OnPolicyKDConfig, {"temperature": 1.0, "max_new_tokens": 64}, "TRAINER_VERSION"),
        (DPOConfig, {"beta": 0.1}, "TRAINER_VERSION"),
        (DaDPOConfig, {"beta_reference": 0.1, "beta_teacher": 0.1}, "TRAINER_VERSION"),
        (
            KDConfig,
            {
                "divergence": "forward_kl",
                "temperature": 1.0,
                "beta": 0.5,
                "alpha": 0.1,
                "nll_weight": 0.0,
                "cached_top_k": 0,
            },
            "TRAINER_VERSION",
        ),
    ],
)
def test_a_changed_default_raises_a_version(config: type[BaseModel], defaults: dict[str, object], version: str) -> None:
    """Keys leave defaults out, so a store would give what an earlier default made: raise the version, then this."""
    now = {name: config.model_fields[name].default for name in defaults}
    assert now == defaults, f"raise {version} with it"
