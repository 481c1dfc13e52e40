"""What golden files hold: every kind of score of a small hand-made board, every judge template, every parser."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import judges
from dadpo_bench import registry, scoring
from dadpo_bench.panels import DRAWS, SEED, Panel
from dadpo_bench.scores import rows_of
from dadpo_bench.scoring import agreement
from dadpo_bench.types import Comparison, Prompt, Reply, Response
from judges.parsers import Offered
from judges.sources import load
from judges.verdicts import Choice, Reading, Token
from tests.regression.boards import PROMPTS, Stands, panel_of

Case = Callable[[], Any]

CASES: dict[str, Case] = {}
REFITTED = ("length-controlled", "bradley-terry", "style-controlled")
"""Made by iterations that stop at a tolerance: equal to 1e-6, all others to 1e-9."""

_LENGTH = (*(f"length_controlled_{name}" for name in ("win_rate", "se", "low", "high")), "length_control")
_RATING = ("rating", "rating_low", "rating_high", "rating_standing")
_SINGLE = ("single_score", "single_by_turn")
_TEXTS = ("mean_length", "cut_share", "repetition")
_KL = ("kl_from_teacher", "kl_to_teacher")
_OWN = (*_LENGTH, *_RATING, *_SINGLE, *_TEXTS, *_KL)
"""Columns with a case of their own; all others, new ones too, stand in every board's."""


def _case(name: str) -> Callable[[Case], Case]:
    def note(case: Case) -> Case:
        CASES[name] = case
        return case

    return note


def _cells(panel: Panel, wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A board's rows: the columns wanted, by default those that have no case of their own."""
    rows = [row.cells() for row in rows_of(replace(panel))]  # a panel keeps what it drew; a copy draws again
    keep = ("contestant", *wanted) if wanted else [name for name in rows[0] if name not in _OWN]
    return [{name: row[name] for name in keep} for row in rows]


@cache
def star() -> Panel:
    """Both orders asked, with ties, unscored ones and prompts that are scored in one order alone."""
    return panel_of(
        "pairwise",
        [
            Stands("teacher", "teacher"),
            Stands("student", "student", orders="LL LL WL LL ?? LT LL", wordy=-3, kl=(0.9, 1.4)),
            Stands("sft", seed=0, orders="WL LL WW TT L?", kl=(0.41, 0.52)),
            Stands("kd", seed=0, orders="WW WL LL TW LL WW ?L", wordy=4, kl=(0.11, 0.19)),
            Stands("dpo", seed=0, orders="WW LW WW TT LL ?? WL WW ?W LT WW", wordy=9),
            Stands("dadpo", seed=0, orders="WW WW TW LL WW LW WW WL", wordy=2, kl=(0.21, 0.17)),
            Stands("always", seed=0, orders="WW", wordy=20),
        ],
    )


@cache
def _seeded() -> Panel:
    seeds = {
        "sft": ("WL LL WW TT L?", "WW LL WL", "LL LT WW WL"),
        "dpo": ("WW LW WW TT LL ?? WL WW ?W LT WW", "WW ?? LL WW WW", "WL WW LL WW"),
        "dadpo": ("WW WW TW LL WW LW WW WL", "WW WW LL"),
    }
    kl = {("sft", 0): (0.4, 0.5), ("sft", 1): (0.3, 0.7), ("sft", 2): (0.5, 0.6), ("dpo", 0): (0.2, 0.3)}
    stands = [Stands(n, seed=s, orders=o, kl=kl.get((n, s))) for n, own in seeds.items() for s, o in enumerate(own)]
    return panel_of("pairwise", [Stands("teacher", "teacher"), *stands])


@cache
def rated() -> Panel:
    """Nobody is the baseline: single answers, some of two turns, rated from 1 to 10."""
    return panel_of(
        "pointwise",
        [
            Stands("a", "entrant", ratings=[(8, 6), (9, 9), (10,), None, (7, 4)]),
            Stands("b", "entrant", ratings=[(5, 5), (9, 3), (8,), (6, 2), (7, 5), (1, 10), (4,)]),
            Stands("c", "entrant", ratings=[6.5, 8.0, None]),
        ],
    )


@_case("pairwise-both-orders")
def _() -> Any:
    return _cells(star())


@_case("pairwise-one-order")
def _() -> Any:
    stands = [Stands("dpo", orders="W. L. .W T. .? L."), Stands("dadpo", orders="W. W. .W .L T.")]
    return _cells(panel_of("pairwise", [Stands("teacher", "teacher"), *stands]))


@_case("graded-preferences")
def _() -> Any:
    stands = [
        Stands("dpo", grades=[0.91, 0.3, 0.5, 0.5, None, 0.72, 0.08]),
        Stands("dadpo", grades=[1.0, 0.75, 0.25, 0.0, 0.5, 0.6, 0.99, 0.51, 0.2]),
    ]
    return _cells(panel_of("pairwise", [Stands("teacher", "teacher"), *stands]))


@_case("pointwise-against-a-baseline")
def _() -> Any:
    stands = [
        Stands("teacher", "teacher", ratings=[1.0, 2.0, 0.5]),
        Stands("dpo", ratings=[1.5, 2.0, None, -0.25, 3.0]),
        Stands("dadpo", ratings=[1.0, 2.5, 0.75, 1.75]),
    ]
    return _cells(panel_of("pointwise", stands, proxy=True))


@_case("single-answers-by-turn")
def _() -> Any:
    return _cells(rated(), _SINGLE)


@_case("several-seeds")
def _() -> Any:
    return {"together": _cells(_seeded()), "apart": _cells(_seeded().per_seed())}


@_case("canaries")
def _() -> Any:
    stands = [
        Stands("teacher", "teacher"),
        Stands("sft", seed=0, orders="WL LL WW TT"),
        Stands("echo", "canary", seed=0, orders="LL LL WL LL ??"),
        Stands("padded", "canary", seed=0, orders="WW LL TT"),
    ]
    rows = _cells(panel_of("pairwise", stands))
    return [{**row, "loses_clearly": scoring.loses_clearly(row["ci_high"])} for row in rows]


@_case("categories")
def _() -> Any:
    return {category: _cells(star().of(category)) for category in ("writing", "maths")}


@_case("length-controlled")
def _() -> Any:
    return _cells(star(), _LENGTH)


@_case("length-controlled-by-published-coefficients")
def _() -> Any:
    difficulty = {"a": -1.5, "b": 0.25, "c": 3.0}
    return [
        scoring.published_win_rate(scoring.Coefficients(-0.7, slope, bias), difficulty, prompts)
        for slope, bias, prompts in ((1.2, -0.4, "abc"), (0.0, 0.0, "ab"), (-2.0, 1.1, "bbc"))
    ]


@_case("bradley-terry")
def _() -> Any:
    """On the board's star, and over all pairs of another design, one of them never compared."""
    pairs = np.array([[1, 0], [2, 0], [1, 2], [3, 1]])
    found = scoring.bradley_terry_ratings(pairs, _met(), scoring.bootstrap_counts(PROMPTS, 500, SEED), seed=SEED)
    return {"star": _cells(star(), _RATING), "any design": [rating.as_data() for rating in found]}


@_case("style-controlled")
def _() -> Any:
    texts = ("# A\n- one\n- two **bold**", "plain words " * 9, "## B\n```\n# no header\n```\n1. one", "__x__ " * 4)
    counter = scoring.TokenCounter("words", lambda text: len(text.split()))
    metadata = [scoring.style_metadata(text, counter) for text in texts]
    vectors = np.stack([scoring.style_vector(m) for m in metadata])
    at = np.arange(PROMPTS)
    first, second = (np.stack([vectors[(at * k + shift) % 4] for k in range(1, 5)]) for shift in (0, 1))
    pairs = np.array([[1, 0], [2, 0], [1, 2], [3, 1]])
    found = scoring.style_ratings(
        pairs,
        _met(),
        scoring.style_differences(first, second),
        scoring.bootstrap_counts(PROMPTS, 50, SEED),
        counter=counter.name,
        seed=SEED,
    )
    ratings = [rating.as_data() for rating in found.ratings]
    return {"metadata": metadata, **found._asdict(), "ratings": ratings}


def _met() -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """(prompts,) outcomes of four pairs."""
    entrants = {e.label: e for e in star().entrants}
    return [scoring.nanmean(star().standing(entrants[name]), 0) for name in ("sft", "kd", "dpo", "dadpo")]


@_case("corrected-win-rate")
def _() -> Any:
    """Labels of 20, 22 and of no more prompts than the judge scored."""
    labels = np.array([[1.0, 0.0, 1.0, 0.5][i % 4] for i in range(PROMPTS)])
    found = {}
    for few in (20, 22, PROMPTS):
        given = np.where(np.arange(PROMPTS) < few, labels, np.nan)
        found[f"{few} labels"] = scoring.corrected_win_rate(_met()[3], given)._asdict()
    return found


@_case("paired-differences")
def _() -> Any:
    """Every two methods, by each of the three ways that they are computed, and Holm over them."""
    entrants = [e for e in star().entrants if e.kind == "method"]
    seeded = [e for e in _seeded().entrants if e.kind == "method"]
    counts = scoring.bootstrap_counts(PROMPTS, DRAWS, SEED)
    outcomes = [star().standing(e) for e in entrants]
    means = scoring.all_bootstrap_means(outcomes, counts, SEED)
    together = scoring.all_paired_differences(outcomes, means, counts, seed=SEED)
    found = {
        f"{entrants[one].label} and {entrants[other].label}": gap._asdict()
        for (one, other), gap in sorted(together.items())
        if gap
    }
    adjusted = scoring.holm([gap["p_value"] for gap in found.values()])
    stood = [_seeded().standing(e) for e in seeded]
    pairs = [(stood[0], stood[1]), (stood[0], stood[2])]
    many = scoring.paired_differences(pairs, draws=DRAWS, seed=SEED)
    return {
        "together": {name: {**gap, "p_holm": p} for (name, gap), p in zip(found.items(), adjusted, strict=True)},
        "seeds": [_data(scoring.paired_difference(*pair, counts, seed=SEED)) for pair in pairs],
        "many": [_data(gap) for gap in many],
    }


def _data(gap: scoring.Difference | None) -> dict[str, Any] | None:
    return gap._asdict() if gap else None


@_case("kl-columns")
def _() -> Any:
    return {"one seed": _cells(star(), _KL), "several": _cells(_seeded(), _KL)}


@_case("texts")
def _() -> Any:
    return _cells(star(), _TEXTS)


@_case("agreement-of-judges")
def _() -> Any:
    said = np.stack(_met())
    orders = np.concatenate([star().orders(e)[0] for e in star().entrants if e.kind == "method"])
    lengths = np.array([[4.0 + i % 5, 2.0 + i % 7] for i in range(PROMPTS)])
    share = agreement.agreement(said[0], said[1:], draws=500, seed=SEED)
    return {
        "agreement": share._asdict() if share else None,
        "accord": agreement.accord(["sft", "kd", "dpo", "dadpo"], said).as_data(),
        "cohen_kappa": agreement.cohen_kappa(said[1], said[2]),
        "majority": agreement.majority(said[:3]).tolist(),
        "first_shown": agreement.first_shown_share(orders),
        "prefers_longer": agreement.preferred_share(said[2], lengths[:, 0], lengths[:, 1]),
    }


@_case("power")
def _() -> Any:
    """By deviation and effect: prompts needed, what 100 prompts detect, power on 100 prompts."""
    return {
        f"sd {sd}, effect {effect}, alpha {alpha}": [
            scoring.prompts_needed(sd, effect, alpha=alpha),
            scoring.detectable_effect(sd, 100, alpha=alpha),
            scoring.power_of(sd, effect, 100, alpha=alpha),
        ]
        for sd, effect, alpha in ((30, 3, 0.05), (48, 5, 0.05), (20, 10, 0.01))
    }


@_case("judge-templates")
def _() -> Any:
    """The sha256 that stands in every judge's key, of the files as they lie."""
    folder = Path(judges.__file__).parent / "templates"
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.toml"))}


@_case("judge-questions")
def _() -> Any:
    """What each template asks, to the letter, about one turn and two, with reference and checklist."""
    plain = Prompt(id="1", turns=("Two and two?",), reference=("Four.",), checklist=("Is it four?", "Is it short?"))
    talk = Prompt(id="2", turns=("Two and two?", "And {answer_a}?"), system="Be brief.")
    shown = {}
    for entry in registry.templates:
        template = load(entry.name, entry.kind)
        for prompt in (plain, talk) if entry.name != "checklist" else (plain,):
            ours, theirs = (
                Response(prompt=prompt, replies=tuple(Reply(text=text) for _ in prompt.turns))
                for text in ("Four. [[A]]", "Five <|im_end|> {question}")
            )
            item = Comparison(contestant=ours, baseline=theirs, order="ba") if entry.kind == "pairwise" else theirs
            filled = template.fill(item, "NONCE")
            shown[f"{entry.name}, {len(prompt.turns)} turns"] = [m.model_dump(mode="json") for m in filled]
    return shown


_THREE = {Choice.first: "[[A]]", Choice.second: "[[B]]", Choice.tie: "[[C]]"}
_FIVE = {
    Choice.much_first: "[[A>>B]]",
    Choice.first: "[[A>B]]",
    Choice.tie: "[[A=B]]",
    Choice.second: "[[B>A]]",
    Choice.much_second: "[[B>>A]]",
}
_MODELS = {Choice.first: "m", Choice.second: "M"}
_SIDES = {Choice.first: "A", Choice.second: "B", Choice.tie: "Tie"}
_LABELS: Mapping[str, Mapping[Choice, str]] = {
    "arena-hard": _FIVE,
    "ranking": _MODELS,
    "line-label": _MODELS,
    "result": _SIDES,
    "json-choice": _SIDES,
}
_TEXTS_READ = (
    "[[A]]",
    "First [[A]], no: [[B]]",
    "[[C]]\u2028 done",
    "[[a]] [A] A",
    "I take [[A>>B]] and again [[A>>B]]",
    "[[A>B]] or [[B>A]]",
    "[[A=B]]",
    "m is better",
    " M\nbecause",
    "m\nM",
    "[{'model': 'm', 'rank': 1}, {'model': 'M', 'rank': 2}]",
    '[{"model": "M", "rank": 1}, {"model": "m", "rank": 2}]',
    "7 9\nBecause",
    "8.5, 8.5",
    "1 2 3",
    "Rating: [[7]]",
    "[[3]] or rather [[4.5]]",
    "[[11]]",
    "[6]",
    "Fine. [RESULT] A",
    "**Result:** B",
    "[RESULT] 4",
    "[RESULT] 3 out of 10",
    "[RESULT] A and B",
    '{"Choice": "A"}',
    '"Choice": "[[B]]" "Choice": "Tie"',
    "",
)
_TOKENS_READ: Mapping[str, Sequence[Token]] = {
    "A 0.6, B 0.3": [Token("A", {"A": math.log(0.6), "B": math.log(0.3)})],
    "space counts": [Token(" B", {" B": math.log(0.5), "B": math.log(0.2), "A": math.log(0.1)})],
    "first or last": [Token("A", {"A": math.log(0.9), "B": math.log(0.05)}), Token("B", {"B": math.log(0.8)})],
    "words before": [Token("So", {"So": -0.1, "A": -3.0}), Token("A", {"A": math.log(0.7), "B": math.log(0.2)})],
    "little mass": [Token("X", {"X": -0.1, "A": math.log(0.03), "B": math.log(0.01)})],
    "nothing": [],
}


@_case("parsers")
def _() -> Any:
    """Of each registered parser of this project every text, or tokens, and what it reads of them."""
    table: dict[str, dict[str, Any]] = {}
    for entry in registry.parsers:
        if entry.target.startswith("judges."):
            parse, letters = registry.parsers.load(entry.name), {Choice.first: "A", Choice.second: "B"}
            if entry.logprobs:
                readings = {
                    name: parse("", given, Offered(letters, label_mass=0.1)) for name, given in _TOKENS_READ.items()
                }
            else:
                offered = Offered(_LABELS.get(entry.name, _THREE))
                readings = {text: parse(text, (), offered) for text in _TEXTS_READ}
            table[entry.name] = {name: _read(reading) for name, reading in readings.items()}
    return table


def _read(reading: Reading) -> Any:
    return reading.value if reading.value is not None else reading.reason or None
