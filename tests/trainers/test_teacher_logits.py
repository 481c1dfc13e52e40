"""KD from a teacher on disk: a lower bound of the full divergence, made once, never mistaken for another teacher's."""

import gc
import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from dadpo_bench.errors import WorkError
from dadpo_bench.left_behind import owner
from dadpo_bench.models import chat_tokenizer
from dadpo_bench.types import Checkpoint, Example, Job, Prompt, Reply
from tests.tiny import build_tiny_model
from trainers import checkpoint, kd
from trainers.divergences import between, buckets, divergence

KINDS = ("forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl")
TEXTS = [
    ("Name three colours.", "Red, green and blue."),
    ("What is the capital of France?", "Paris."),
    ("Say something.", "First the tea."),
    ("Write a short list.", "Water, tea, sugar."),
]
EXAMPLES = [Example(prompt=Prompt(id=q, turns=(q,)), chosen=Reply(text=y)) for q, y in TEXTS]


def log(*shares: float) -> torch.Tensor:
    return torch.tensor([shares], dtype=torch.float64).log()


def cut(student: torch.Tensor, teacher: torch.Tensor, kind: str, k: int) -> torch.Tensor:
    """The divergence over the teacher's top k and the tail."""
    top = teacher.topk(k).indices
    return between(buckets(student, top), buckets(teacher, top), kind)


def test_a_divergence_over_buckets_worked_by_hand() -> None:
    teacher, student = log(0.5, 0.3, 0.15, 0.05), log(0.4, 0.2, 0.2, 0.2)
    # The teacher's two likeliest tokens and the rest: (0.5, 0.3 | 0.2) and (0.4, 0.2 | 0.4).
    assert buckets(student, torch.tensor([[0, 1]])).exp().tolist()[0] == pytest.approx([0.4, 0.2, 0.4])
    # 0.5·ln(0.5/0.4) + 0.3·ln(0.3/0.2) + 0.2·ln(0.2/0.4) = 0.1116 + 0.1216 − 0.1386 = 0.0946
    assert cut(student, teacher, "forward_kl", 2).item() == pytest.approx(0.09458, abs=1e-5)
    # In full the last term is 0.15·ln(0.15/0.2) + 0.05·ln(0.05/0.2) = −0.0432 − 0.0693: the cut hides 0.0262.
    assert divergence(student, teacher, "forward_kl").item() == pytest.approx(0.12074, abs=1e-5)


def test_a_tail_far_below_rounding_is_exact() -> None:
    # Two tokens of logit 0 against one of 40: their mass is 2·e⁻⁴⁰ = e^(ln 2 − 40). In fp32 1 − Σp is 0, its log −∞.
    tail = buckets(torch.tensor([[40.0, 0.0, 0.0]]), torch.tensor([[0]]))[0, -1]
    assert tail.item() == pytest.approx(math.log(2) - 40)


logits = st.lists(st.floats(-30, 30), min_size=6, max_size=6)


@given(logits, logits)
def test_a_cut_divergence_grows_with_k_to_the_full_one(student: list[float], teacher: list[float]) -> None:
    """Merging tokens loses information and never invents any (data processing), whatever the divergence."""
    ours, theirs = (torch.tensor([values], dtype=torch.float64) for values in (student, teacher))
    for kind in KINDS:
        full = divergence(ours, theirs, kind).item()
        values = [cut(ours, theirs, kind, k).item() for k in range(1, 7)]
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise((0.0, *values)))
        assert values[-1] == pytest.approx(full, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_gradients_are_finite_where_the_mass_is_one_to_rounding(kind: str, k: int) -> None:
    teacher = torch.tensor([[200.0, 0.0, 0.0, 0.0]]).expand(3, 4)
    student = torch.tensor([[200.0, 0, 0, 0], [0, 200.0, 0, 0], [0, 0, 0, 0]], requires_grad=True)
    losses = cut(student, teacher, kind, k)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert losses[0].abs() < 1e-6  # they agree


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories of the models that are loaded, in order."""
    directories: list[Path] = []
    load = AutoModelForCausalLM.from_pretrained

    def noting(directory: Path, **rest: Any) -> Any:
        directories.append(directory)
        return load(directory, **rest)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noting)
    return directories


class Trained(NamedTuple):
    losses: list[float]
    said: list[str]
    checkpoint: Checkpoint


class Stopped(Exception):
    """What a test interrupts a training by."""


def train(
    start: Path, teacher: Path, folder: Path, *, seed: int = 3, stop: int | None = None, **settings: Any
) -> Trained:
    """Two steps an epoch, into `folder / "output"`; the cache is `folder / "cache"`; `stop` raises at a step."""
    losses: list[float] = []
    said: list[str] = []

    def report(step: int, _: int, metrics: Any) -> None:
        if step == stop:
            raise Stopped
        losses.append(metrics.get("loss", metrics.get("validation_loss")))

    job = Job(
        start=start,
        output=folder / "output",
        examples=EXAMPLES[:3],
        validation=EXAMPLES[3:],
        settings={"learning_rate": 1e-3, "batch_size": 2, **settings},
        seed=seed,
        teacher=teacher,
        sampled_ids=False,
        state=folder / "state",
        cache=folder / "cache",
        report=report,
        say=said.append,
    )
    return Trained(losses, said, kd.method.train(job))


def caches(folder: Path) -> list[Path]:
    return sorted((folder / "cache").iterdir())


@pytest.mark.parametrize(
    "settings",
    [{}, {"divergence": "jsd", "temperature": 2.0}, {"divergence": "reverse_kl", "nll_weight": 0.3}],
)
def test_with_the_whole_vocabulary_cached_the_training_is_that_beside_a_resident_teacher(
    settings: dict[str, Any], student: Path, teacher: Path, tmp_path: Path
) -> None:
    resident = train(student, teacher, tmp_path / "a", epochs=2, **settings)
    cached = train(student, teacher, tmp_path / "b", epochs=2, cached_top_k=10**6, **settings)
    assert len(resident.losses) == 5  # one measurement, four steps
    assert cached.losses == pytest.approx(resident.losses, abs=1e-5)
    assert not (tmp_path / "a" / "cache").exists()


def test_a_cached_loss_is_a_lower_bound_and_its_gap_is_measured(student: Path, teacher: Path, tmp_path: Path) -> None:
    resident = train(student, teacher, tmp_path / "resident")
    cached = train(student, teacher, tmp_path, cached_top_k=8)
    record = cached.checkpoint.preflight
    # Both measured their validation loss before the first update.
    assert 0 < cached.losses[0] < resident.losses[0]
    assert 0 < record["cached_divergence"] < record["full_divergence"]
    assert 0 < record["teacher_tail_mass"] < 1
    (line,) = [line for line in cached.said if line.startswith("beyond the teacher's top 8")]
    assert f"{record['full_divergence']:.4f} nats a token, cached {record['cached_divergence']:.4f}" in line
    assert "full_divergence" not in resident.checkpoint.preflight


def test_the_size_is_told_before_the_file_is_made(student: Path, teacher: Path, tmp_path: Path) -> None:
    said = train(student, teacher, tmp_path, cached_top_k=8).said
    tokenizer = chat_tokenizer(str(student))
    tokens = sum(len(tokenizer.branching(e.prompt, [e.chosen], sampled=False).continuations[0]) for e in EXAMPLES)
    # Eight ids and log-probs of four bytes each, and the tail: 68 bytes a token, some kilobytes in all.
    assert said[0].startswith(f"teacher's top-8 logits of {tokens} tokens: {68 * tokens / 1e6:.1f} MB on disk")
    (path,) = caches(tmp_path)
    ours = load_file(path)
    assert ours["ids"].nbytes + ours["log_probs"].nbytes == 68 * tokens
    assert ours["offsets"][-1] == tokens


def test_another_seed_and_other_settings_use_the_same_file(
    student: Path, teacher: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    train(student, teacher, tmp_path, cached_top_k=8)
    assert loaded == [teacher, student, student]  # to fill the cache, to measure the gap, to be trained
    again = train(student, teacher, tmp_path, seed=4, cached_top_k=8, divergence="jsd", epochs=2)
    assert loaded.count(teacher) == 1
    assert not [line for line in again.said if "on disk" in line]


def test_no_model_stays_in_memory_beside_the_student(student: Path, teacher: Path, tmp_path: Path) -> None:
    job = Job(student, tmp_path, EXAMPLES, {}, seed=0, teacher=teacher, sampled_ids=False, cache=tmp_path / "cache")
    gc.collect()
    before = sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())
    objective = kd.KDObjective(kd.KDConfig(cached_top_k=8), job)
    assert sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects()) == before
    assert objective.teacher.record["divergence_tokens"] > 0


def test_another_teacher_never_gets_the_first_ones_logits(
    student: Path, teacher: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    train(student, teacher, tmp_path, cached_top_k=8)
    # From oneself there is nothing to learn; from another teacher's logits there would be.
    own = train(student, student, tmp_path, cached_top_k=8)
    assert own.losses[0] == pytest.approx(0, abs=1e-6)
    assert len(caches(tmp_path)) == 2


@pytest.mark.parametrize("setting", [{"cached_top_k": 9}, {"temperature": 2.0}, {"max_tokens": 40}])
def test_what_changes_the_logits_makes_another_file(
    setting: dict[str, Any], student: Path, teacher: Path, tmp_path: Path
) -> None:
    train(student, teacher, tmp_path, cached_top_k=8)
    train(student, teacher, tmp_path, **{"cached_top_k": 8, **setting})
    assert len(caches(tmp_path)) == 2


def cut_short(whole: bytes) -> bytes:
    return whole[:-100]


def one_byte_wrong(whole: bytes) -> bytes:
    return whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]


@pytest.mark.parametrize("damage", [cut_short, one_byte_wrong, lambda whole: b""])
def test_a_damaged_file_is_made_anew(
    damage: Callable[[bytes], bytes], student: Path, teacher: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    first = train(student, teacher, tmp_path, cached_top_k=8)
    (path,) = caches(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    second = train(student, teacher, tmp_path, cached_top_k=8)
    assert loaded.count(teacher) == 2
    assert path.read_bytes() == whole
    assert second.losses == first.losses


def test_what_a_killed_process_left_half_written_is_cleared_away(student: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    here = owner().split("@")[0]
    (tmp_path / "cache" / f".x.safetensors.{here}@999999999.partial").write_text("half")  # no process has this number
    train(student, teacher, tmp_path, cached_top_k=8)
    assert [path.suffix for path in caches(tmp_path)] == [".safetensors"]


def test_a_disk_too_small_is_told_before_the_work(
    student: Path, teacher: Path, tmp_path: Path, loaded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(WorkError, match=r"has 0\.0 MB left: free some, lower cached_top_k"):
        train(student, teacher, tmp_path, cached_top_k=8)
    assert not loaded
    assert not caches(tmp_path)


def test_a_cached_training_interrupted_at_every_step_gives_the_same_weights(
    student: Path, teacher: Path, tmp_path: Path, loaded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0)
    monkeypatch.setattr(checkpoint, "SAVE_SHARE", float("inf"))
    whole = train(student, teacher, tmp_path / "whole", cached_top_k=8, epochs=2)
    parts = tmp_path / "parts"
    for step in (1, 2, 3, 4):
        with pytest.raises(Stopped):
            train(student, teacher, parts, cached_top_k=8, epochs=2, stop=step)
    rest = train(student, teacher, parts, cached_top_k=8, epochs=2)
    assert loaded.count(teacher) == 2  # once a folder
    assert "goes on behind step 3" in rest.said
    assert rest.losses == whole.losses[-1:]
    ours, theirs = (load_file(folder / "output" / "model.safetensors") for folder in (tmp_path / "whole", parts))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("top_k", [0, 8])
def test_a_teacher_of_more_vocabulary_rows_is_cut_to_the_shared_ones_and_says_so(
    top_k: int, student: Path, teacher: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(teacher)
    rows = model.config.vocab_size
    model.resize_token_embeddings(rows + 20, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[rows:] *= 100  # mass on rows without tokens
    padded = shutil.copytree(teacher, tmp_path / "padded")
    model.save_pretrained(padded)
    plain = train(student, teacher, tmp_path, cached_top_k=top_k)
    cut_to = train(student, padded, tmp_path, cached_top_k=top_k)
    line = f"unequal rows: {rows} of the student, {rows + 20} of the teacher; the {rows} that both have are compared"
    assert line in cut_to.said[0]
    assert not [line for line in plain.said if "unequal" in line]
    assert cut_to.losses == pytest.approx(plain.losses, rel=1e-6)


def test_a_job_without_a_folder_for_the_cache_is_refused(student: Path, teacher: Path, tmp_path: Path) -> None:
    job = Job(student, tmp_path / "x", EXAMPLES, {"cached_top_k": 8}, seed=0, teacher=teacher, sampled_ids=False)
    with pytest.raises(WorkError, match="needs a folder for the teacher's logits"):
        kd.method.train(job)
