"""Open boards made by hand, for tests: who won what, prompt by prompt."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

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
    said = {
        judge: {name: [Verdict(outcome=OUTCOMES[letter]) for letter in letters] for name, letters in given.items()}
        for judge, given in judges.items()
    }
    return _kept(path, "pairwise", said, "base", words, twins)


def rated(path: Path, judges: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A store of one board without a baseline: by judge and contestant a rating a prompt."""
    said = {
        judge: {name: [Rating(value=value) for value in ratings] for name, ratings in given.items()}
        for judge, given in judges.items()
    }
    return _kept(path, "pointwise", said, "", {}, ())


def _kept(
    path: Path,
    kind: Literal["pairwise", "pointwise"],
    judges: Mapping[str, Mapping[str, Sequence[Verdict | Rating]]],
    baseline: str,
    words: Mapping[str, int],
    twins: Sequence[str],
) -> str:
    names = dict.fromkeys(name for said in judges.values() for name in said)
    count = max(len(given) for said in judges.values() for given in said.values())
    categories = "ab" if baseline else ("",)
    prompts = tuple(
        Prompt(id=str(i), turns=(f"question {i}",), category=categories[i % len(categories)]) for i in range(count)
    )
    responses = {
        name: {
            p.key: response(p, baseline if name in twins else name, i, words.get(name, 1))
            for i, p in enumerate(prompts)
        }
        for name in (*filter(None, [baseline]), *names)
    }
    judged = [
        JudgedBy(
            judge,
            kind,
            {"imported": "test", "judge": judge},
            [Judgment(name, p.key, one) for name, given in said.items() for p, one in zip(prompts, given, strict=True)],
        )
        for judge, said in judges.items()
    ]
    task = Task(name="t", domain="out", split="heldout", prompts=prompts)
    with closing(open_store(str(path))) as store:
        keep(store, Parcel(task, responses, baseline, judged))
    return str(path)


def response(prompt: Prompt, name: str, place: int, words: int) -> Response:
    text = f"{name} {place} " + "word " * (words + place % 5)
    return Response(prompt=prompt, replies=(Reply(text=text.strip()),))
