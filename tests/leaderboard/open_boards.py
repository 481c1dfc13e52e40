"""Open boards made by hand, for tests: who won what, prompt by prompt."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from dadpo_bench.exchange import JudgedBy, Judgment, Parcel
from dadpo_bench.exchange.stored import keep
from dadpo_bench.store import open_store
from dadpo_bench.tasks import Task
from dadpo_bench.types import Outcome, Prompt, Rating, Reply, Response, Verdict

OUTCOMES = {"W": Outcome.win, "L": Outcome.loss, "T": Outcome.tie}


def made(
    path: Path, judges: Mapping[str, Mapping[str, str]], words: Mapping[str, int] = {}, twins: Sequence[str] = ()
) -> str:
    """A store of one board: by judge and contestant a letter a prompt.

    `words` lengthens somebody's responses; `twins` say what the baseline does.
    """
    names = dict.fromkeys(name for said in judges.values() for name in said)
    count = max(len(letters) for said in judges.values() for letters in said.values())
    prompts = tuple(Prompt(id=str(i), turns=(f"question {i}",), category="ab"[i % 2]) for i in range(count))
    responses = {
        name: {
            p.key: response(p, "base" if name in twins else name, i, words.get(name, 1)) for i, p in enumerate(prompts)
        }
        for name in ("base", *names)
    }
    judged = [
        JudgedBy(
            judge,
            "pairwise",
            {"imported": "test", "judge": judge},
            [
                Judgment(name, p.key, Verdict(outcome=OUTCOMES[letter]))
                for name, letters in said.items()
                for p, letter in zip(prompts, letters, strict=True)
            ],
        )
        for judge, said in judges.items()
    ]
    with closing(open_store(str(path))) as store:
        keep(store, Parcel(Task(name="t", domain="out", split="heldout", prompts=prompts), responses, "base", judged))
    return str(path)


def rated(path: Path, judges: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A store of one board without a baseline: by judge and contestant a rating a prompt."""
    names = dict.fromkeys(name for said in judges.values() for name in said)
    count = max(len(ratings) for said in judges.values() for ratings in said.values())
    prompts = tuple(Prompt(id=str(i), turns=(f"question {i}",)) for i in range(count))
    responses = {name: {p.key: response(p, name, i, 1) for i, p in enumerate(prompts)} for name in names}
    judged = [
        JudgedBy(
            judge,
            "pointwise",
            {"imported": "test", "judge": judge},
            [
                Judgment(name, p.key, Rating(value=value))
                for name, ratings in said.items()
                for p, value in zip(prompts, ratings, strict=True)
            ],
        )
        for judge, said in judges.items()
    ]
    with closing(open_store(str(path))) as store:
        keep(store, Parcel(Task(name="t", domain="out", split="heldout", prompts=prompts), responses, "", judged))
    return str(path)


def response(prompt: Prompt, name: str, place: int, words: int) -> Response:
    text = f"{name} {place} " + "word " * (words + place % 5)
    return Response(prompt=prompt, replies=(Reply(text=text.strip()),))
