"""The gate before a served teacher's log-probs are taken: what it stops, and which cause it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import chat_tokenizer
from dadpo_bench.stages.parity import LARGEST_TOLERANCE, MEAN_TOLERANCE, SAMPLE, check_parity, difference
from dadpo_bench.stages.served import ServedModel
from dadpo_bench.stages.signals import Scored
from dadpo_bench.types import Continuation
from tests.served.conftest import Served
from tests.served.teacher_server import teaching
from tests.tiny import CHATML

PROTOCOLS = pytest.mark.parametrize("protocol", ["vllm", "sglang"])


def gate(model: ServedModel, pairs: list[Scored]) -> dict[str, dict[str, Any]]:
    """By kind and server: the figures that the gate found."""
    tokenizer = chat_tokenizer(str(model.directory))
    branchings = [tokenizer.branching(p.prompt, [p.chosen, p.rejected], sampled=False) for p in pairs]
    asked = [Continuation(b.prompt, ids) for b in branchings for ids in b.continuations]
    found = [figures for _, figures in check_parity(model, tokenizer, asked, [p.prompt for p in pairs])]
    return {f"{one.get('kind', 'unchecked')} {one.get('of', one.get('server', ''))}".strip(): one for one in found}


@PROTOCOLS
def test_a_sound_server_passes_and_its_figures_are_known(
    protocol: str, directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with teaching(directory) as server:
        found = gate(served(server, protocol=protocol, weights=str(directory)), pairs)
        assert server.scored == 2 * SAMPLE
    assert found["template"]["prompts"] == 2
    assert found[f"again 127.0.0.1:{server.port}"]["mean"] < 1e-4
    assert found["weights float32/float32"]["largest"] < 1e-4


@PROTOCOLS
def test_a_prefix_cache_that_spoils_log_probs_is_caught_and_named(
    protocol: str, directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with (
        teaching(directory, prefix_cache=True) as server,
        pytest.raises(WorkError, match=r"another order.*--no-enable-prefix-caching, SGLang with --disable-radix-cache"),
    ):
        gate(served(server, protocol=protocol), pairs)


@PROTOCOLS
def test_a_cache_that_holds_the_responses_already_is_caught_too(
    protocol: str, directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with teaching(directory, prefix_cache=True) as server:
        model = served(server, protocol=protocol)
        for _ in range(2):  # the second time every place would be as stale as the first
            with pytest.raises(WorkError, match=r"another order.*issue 42019"):
                gate(model, pairs)


def test_a_coarser_format_is_caught_against_local_weights_and_named(
    directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with teaching(directory, coarse=2.0) as server:
        gate(served(server), pairs)  # it repeats itself exactly
        with pytest.raises(WorkError, match=r"teacher.weights.*a quantised server, or another number format"):
            gate(served(server, weights=str(directory)), pairs)


def test_other_weights_are_caught_against_local_ones(
    tiny_models: tuple[Path, Path], served: Served, pairs: list[Scored]
) -> None:
    teacher, other = tiny_models
    with teaching(other) as server, pytest.raises(WorkError, match=r"other weights than teacher.weights"):
        gate(served(server, weights=str(teacher)), pairs)


def test_a_token_that_the_server_puts_first_is_caught_against_local_weights(
    directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with teaching(directory, own_bos=True) as server, pytest.raises(WorkError, match=r"teacher.weights in float32"):
        gate(served(server, weights=str(directory)), pairs)


def test_another_chat_template_is_caught_by_the_length_of_a_prompt(
    directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with (
        teaching(directory, chat_template=CHATML.replace("assistant\n", "assistant\n\n\n")) as server,
        pytest.raises(WorkError, match=r"makes \d+ tokens of prompt 'p[01]'.*another chat template"),
    ):
        gate(served(server), pairs)


def test_servers_are_held_against_each_other(
    tiny_models: tuple[Path, Path], served: Served, pairs: list[Scored]
) -> None:
    with teaching(tiny_models[0]) as one, teaching(tiny_models[0]) as same, teaching(tiny_models[1]) as other:
        found = gate(served(one, same), pairs)
        assert found[f"servers 127.0.0.1:{same.port}"]["largest"] < 1e-4
        with pytest.raises(WorkError, match=r"other weights, or another number format, than the first server's"):
            gate(served(one, other), pairs)


def test_a_server_that_is_down_is_not_checked_and_the_others_are(
    directory: Path, served: Served, pairs: list[Scored]
) -> None:
    with teaching(directory, healthy=False) as down, teaching(directory) as up:
        found = gate(served(down, up), pairs)
    assert found[f"unchecked 127.0.0.1:{down.port}"]["checked"] is False
    assert f"again 127.0.0.1:{up.port}" in found
    assert down.scored == 0


def test_weights_of_another_tokenizer_are_refused(
    directory: Path, served: Served, pairs: list[Scored], tmp_path: Path
) -> None:
    from tests.tiny import build_tiny_model

    other = build_tiny_model(tmp_path / "other", vocabulary=280)
    with teaching(directory) as server, pytest.raises(UserError, match=r"teacher.weights: their tokenizer"):
        gate(served(server, weights=str(other)), pairs)


def test_a_difference_is_the_mean_the_largest_and_where_it_lies() -> None:
    found = difference([[-1.0, -2.0, -3.0, -4.0], [-1.0]], [[-1.0, -2.5, -3.0, -4.1], [-1.0]])
    assert found.mean == pytest.approx((0.5 + 0.1) / 5)
    assert found.largest == pytest.approx(0.5)
    assert found.early == 0  # the first quarter of four tokens is one, and of one token that one
    assert not found.within
    assert difference([[-1.0, -2.0]], [[-1.0, -2.0]]).within


def test_the_tolerance_holds_for_mean_and_single_token() -> None:
    steady = [[0.0] * 100]
    assert not difference(steady, [[-MEAN_TOLERANCE * 1.01] * 100]).within
    assert not difference(steady, [[-LARGEST_TOLERANCE * 1.01] + [0.0] * 99]).within
    assert difference(steady, [[-MEAN_TOLERANCE * 0.99] * 100]).within
