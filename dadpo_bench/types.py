"""The vocabulary: a reader who knows these types can read any module.

A `Prompt` is answered by a model with a `Response`; a judge turns responses into a `Verdict` (of two)
or a `Rating` (of one). Everything else speaks in these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from dadpo_bench.registry import JudgeEntry

Order = Literal["ab", "ba"]
"""Which response the judge saw first: `ab` the contestant's, `ba` the baseline's."""


def content_key(*parts: Any) -> str:
    """A 32-digit hexadecimal sha256 key of JSON-serialisable parts: equal content, equal key, on any machine.

    Of a pydantic model counts what differs from its defaults. So a new setting whose default changes nothing
    leaves every key as it was; whoever changes a default raises the version that stands beside it in the key.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_essence)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _essence(part: Any) -> JsonObject:
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json", exclude_defaults=True)
    raise TypeError(f"{type(part).__name__} cannot be part of a key")


class Value(BaseModel):
    """Base of the immutable, strictly checked value types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Message(Value):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Value):
    """What is asked: one user message a turn; the answers in between belong to whoever is asked."""

    id: str
    turns: tuple[str, ...]
    category: str = ""
    system: str = ""
    reference: tuple[str, ...] = ()
    """A right answer to each turn, for judges that are shown one; empty where there is none."""
    checklist: tuple[str, ...] = ()
    """What a good answer does, for judges that are guided by it."""

    @property
    def key(self) -> str:
        """Identifies the content; ids and categories are labels and may differ between tasks."""
        guides = [self.reference, self.checklist]
        return content_key("prompt", self.system, self.turns, *(guides if any(guides) else ()))

    @property
    def asks(self) -> tuple[str, tuple[str, ...]]:
        """System text and turns: what a model sees of it, whatever else is known."""
        return self.system, self.turns

    def messages(self, replies: tuple[str, ...] = ()) -> list[Message]:
        """The conversation up to the next reply: `len(replies) + 1` user messages with the replies between."""
        conversation = [Message(role="system", content=self.system)] if self.system else []
        for turn, reply in zip(self.turns, (*replies, None), strict=False):
            conversation.append(Message(role="user", content=turn))
            if reply is not None:
                conversation.append(Message(role="assistant", content=reply))
        return conversation


class Sampling(Value):
    """How replies are drawn; part of every response's key."""

    temperature: float = Field(1.0, ge=0, description="Softmax temperature; 0 is greedy decoding.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: share of probability mass kept.")
    max_new_tokens: int = Field(64, ge=1, description="Limit on new tokens a turn; a reply it cuts is marked so.")
    batch_size: int = Field(24, ge=1, description="Prompts decoded together; changes the samples, not their law.")


class Finish(StrEnum):
    """Why a reply ended."""

    stop = "stop"
    """The model gave its end-of-turn token."""
    length = "length"
    """The limit on new tokens cut it: it is trained and scored WITHOUT an end-of-turn token."""


class Reply(Value):
    """One assistant message, as sampled."""

    text: str
    token_ids: tuple[int, ...] = ()
    """Sampled ids, end-of-turn included where the model gave it; empty for text that no model sampled."""
    finish: Finish = Finish.stop


class Response(Value):
    """A model's replies to every turn of one prompt."""

    prompt: Prompt
    replies: tuple[Reply, ...]
    seconds: float | None = None
    """That all its turns took, of a batch its share; None where nobody measured."""

    @property
    def text(self) -> str:
        """All replies, a blank line between turns; its length in characters is the board's `mean_length`."""
        return "\n\n".join(reply.text for reply in self.replies)

    @property
    def cut(self) -> bool:
        """Whether any reply was cut by the token limit."""
        return any(reply.finish is Finish.length for reply in self.replies)


class Outcome(StrEnum):
    """What a judge said of two responses; `unscored` carries a reason and is never counted as a tie."""

    win = "win"
    tie = "tie"
    loss = "loss"
    unscored = "unscored"

    @classmethod
    def of(cls, preference: float) -> Outcome:
        """What a graded preference says: above, at or below ½."""
        return cls.win if preference > 0.5 else cls.loss if preference < 0.5 else cls.tie

    def worth(self, preference: float | None = None) -> float | None:
        """What it gives the contestant: 1 a win, ½ a tie, 0 a loss, or the graded preference; None where unscored."""
        worth = {"win": 1.0, "tie": 0.5, "loss": 0.0}.get(self.value)
        return worth if worth is None or preference is None else preference


class Asked(Value):
    """What is kept of a question to a judge beside its answer."""

    reason: str = ""
    """Why unscored: unparsable, refused, too long, api error, missing log-prob; or why without asking. Of a scored
    preference from log-probs: the mass of its label tokens."""
    raw: str = ""
    """The judge's own words."""
    resolved_model: str = ""
    """The model the endpoint says answered."""
    fingerprint: str = ""
    """The endpoint's `system_fingerprint`: which build answered."""
    tokens: int = 0
    """Of the question and the answer together."""
    answer_tokens: int = 0
    """Of the answer alone, hidden reasoning included."""
    seconds: float = 0.0


class Verdict(Asked):
    """A judge's answer about one ordered pair, seen from the contestant's side."""

    outcome: Outcome
    preference: float | None = Field(None, ge=0, le=1)
    """How much the contestant's response is preferred, ½ a tie, where the judge says more than win, tie or loss."""

    @property
    def worth(self) -> float | None:
        """See `Outcome.worth`."""
        return self.outcome.worth(self.preference)


class Rating(Asked):
    """A pointwise judge's score of one response. Two ratings of a prompt make a comparison."""

    value: float | None
    """None where the response could not be scored; `reason` says why."""
    by_turn: tuple[float | None, ...] = ()
    """The score of each turn, where turns are scored apart; `value` is their mean, and None where one is missing."""

    def against(self, baseline: Rating) -> Verdict:
        """What two ratings of a prompt's responses say of them: the higher wins, equal ones tie."""
        if self.value is None or baseline.value is None:
            return Verdict(outcome=Outcome.unscored, reason=(self if self.value is None else baseline).reason)
        if self.value == baseline.value:
            return Verdict(outcome=Outcome.tie)
        return Verdict(outcome=Outcome.win if self.value > baseline.value else Outcome.loss)


class SequenceLogProb(NamedTuple):
    """A signal: log π(y|x), the SUM over the response's tokens in nats, and how many tokens there were."""

    total: float
    tokens: int


JsonObject = Mapping[str, Any]


class Comparison(Value):
    """One question to a pairwise judge: which of two responses to a prompt is better, shown in this order."""

    contestant: Response
    baseline: Response
    order: Order

    @property
    def prompt(self) -> Prompt:
        """The prompt both responses answer."""
        return self.contestant.prompt

    @property
    def shown(self) -> tuple[Response, Response]:
        """The two responses in the order in which the judge sees them."""
        pair = (self.contestant, self.baseline)
        return pair if self.order == "ab" else pair[::-1]


class PairwiseJudge(Protocol):
    """Tells which of two responses is better."""

    def identity(self) -> JsonObject:
        """All that decides a verdict (model, template sha256, sampling): the judge's key is made of it."""
        ...

    def judge(self, comparisons: Sequence[Comparison]) -> Generator[tuple[int, Verdict]]:
        """Yield (index, verdict) as verdicts arrive, in any order, one for each comparison."""
        ...


class PointwiseJudge(Protocol):
    """Scores one response at a time; the higher of two ratings wins, equal ones tie."""

    def identity(self) -> JsonObject:
        """As of `PairwiseJudge`."""
        ...

    def rate(self, responses: Sequence[Response]) -> Iterator[tuple[int, Rating]]:
        """Yield (index, rating) as ratings are made, in any order, one for each response."""
        ...


class LocalJudge(Protocol):
    """A judge of either kind whose model is on the machine that works: on a cluster every worker gets the judge,
    pickled by cloudpickle, and loads the model itself."""

    @property
    def share(self) -> int:
        """Responses or comparisons that a worker is given at a time; 0 where the starting process alone may ask."""
        ...


class PaidJudge(Protocol):
    """What a judge of either kind may tell and be told besides, where asking takes money or long.

    The bench uses whichever of these a judge has. Items are what `judge` or `rate` takes.
    """

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still yielded. Any thread may call it: the first Ctrl-C does."""
        ...

    def tell(self, hear: Callable[[str], None]) -> None:
        """Call `hear` with a line, from any thread, while an answer takes minutes or hours: how far it has come."""
        ...

    def anew(self) -> None:
        """From here on, no answer that is there already counts: what is asked twice is answered twice."""
        ...

    def estimate(self, items: Sequence[Any]) -> str:
        """What asking all of these will cost, in one line."""
        ...

    def bill(self) -> str:
        """What asking has cost, in one line."""
        ...

    def usd(self, read: float, answered: float) -> float | None:
        """What so many tokens cost; None where no price is known."""
        ...


class PricedJudge(Protocol):
    """The class of a judge that costs money: what a stored one costs is told by its identity, without a key."""

    def usd_of(self, identity: JsonObject, read: float, answered: float) -> float | None:
        """What so many tokens cost; None where no price is known."""
        ...


class ShownJudge(Protocol):
    """The class of a judge whose questions `--dry-run` shows. Both need no key and load no model."""

    def unfit(self, config: Any, context: JudgeContext, items: Sequence[Any]) -> list[str]:
        """Of each item why it would stay unscored without being asked about; empty where it would not."""
        ...

    def preview(self, config: Any, context: JudgeContext, items: Sequence[Any], count: int) -> tuple[list[str], str]:
        """What would be asked about the items, and what asking about `count` like them costs, in one line."""
        ...


class Answerer(Protocol):
    """A chat model elsewhere as a contestant, made of its settings by what a `BackendEntry` names as `answering`.

    Making it raises `UserError` for wrong settings and, unless told `key=False`, for a missing key. Told
    `teacher=True`, its messages name the recipe's teacher and its settings.
    """

    def identity(self) -> JsonObject:
        """All that decides an answer, beside the prompt and the temperature, as far as anybody can know it."""
        ...

    def answers(
        self, prompts: Sequence[Prompt], temperatures: Sequence[float]
    ) -> Generator[tuple[int, Response | str]]:
        """Yield (index, response) as conversations are answered, or the reason why one is not, which is no result.

        Raises `UserError` where no prompt will be answered, `WorkError` where the server keeps failing or a limit is
        reached; what was yielded before stands.
        """
        ...

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still yielded. Any thread may call it."""
        ...

    def estimate(self, prompts: Sequence[Prompt]) -> str:
        """What answering all of these will cost, in one line."""
        ...

    def bill(self) -> str:
        """What it has cost, in one line."""
        ...


class Continuation(NamedTuple):
    """Token ids that are to be scored behind those that they continue."""

    prompt: Sequence[int]
    ids: Sequence[int]

    @property
    def tokens(self) -> int:
        """That a model reads for it."""
        return len(self.prompt) + len(self.ids)


class TokenScorer(Protocol):
    """A model elsewhere that gives the log-probs of token ids, made of its settings by what a `BackendEntry` names as
    `scoring`. Making it raises as of `Answerer`.
    """

    version: int
    """Part of every signal's key."""
    servers: Sequence[str]
    """Where it is asked, as messages name it."""

    def scores(
        self, batches: Sequence[Sequence[Continuation]], server: int | None = None, salt: str = ""
    ) -> Generator[tuple[int, list[list[float]] | str]]:
        """Yield (index, log-prob of every token of every continuation of that batch), each batch one request, as they
        arrive; or the reason why there are none. Of one server alone where it is told which. What a server's prefix
        cache holds under another `salt` it does not use.

        Raises `UserError` where what the server gives cannot be what was asked for, `WorkError` where none is up or
        they keep failing; what was yielded before stands.
        """
        ...

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> Generator[tuple[int, int | str]]:
        """Yield (index, how many tokens the server's own chat template makes of a prompt), or why that is not known."""
        ...

    def finish(self) -> None:
        """Ask nothing more; what is in flight is still yielded. Any thread may call it."""
        ...

    def bill(self) -> str:
        """What it has taken, in one line."""
        ...


class Member(NamedTuple):
    """A judge on a panel."""

    name: str
    """As asked for, e.g. `chat:gpt-4o`."""
    entry: JudgeEntry
    judge: Any
    """A `PairwiseJudge` or a `PointwiseJudge`, as its entry says."""


class PanelJudge(PairwiseJudge, Protocol):
    """Several judges in one's place. The bench asks each member as a judge of its own and keeps what it says.

    Its config has `members` too, each with `judge` and `settings`, as `--judge` and a recipe name them.
    """

    members: Sequence[Member]

    def identity(self) -> JsonObject:
        """As of `PairwiseJudge`, without the members: the bench adds theirs, as `panel`."""
        ...

    def verdict(self, said: Sequence[Verdict]) -> Verdict:
        """Of one ordered pair, made of nothing but the members' verdicts, given in the order of `members`.

        Unscored while one of them is.
        """
        ...


class JudgeContext(NamedTuple):
    """What a judge may use besides its config: where the recipe's teacher lies, and its chat template."""

    teacher: Callable[[], Path]
    """Asked only by judges that need it: finding a model may mean converting or downloading it."""
    teacher_chat_template: str | None


class Pair(NamedTuple):
    """Sequence log-probs of a preferred and a dispreferred response, nats: floats, or tensors of shape (B,)."""

    chosen: Any
    rejected: Any


class Example(Value):
    """What a method learns from: a teacher's response and, for preference methods, the student's own."""

    prompt: Prompt
    chosen: Reply
    rejected: Reply | None = None
    signals: Mapping[str, Pair] = {}
    """Per frozen model (`reference`, `teacher`): what it gives the two responses. Kept with the example."""


@dataclass(frozen=True)
class Job:
    """One training: where it starts, what it learns from, where the checkpoint goes."""

    start: Path
    output: Path
    examples: Sequence[Example]
    settings: JsonObject
    """Validated by the method's config class."""
    seed: int
    teacher: Path | None = None
    """Given to methods that declare the signal `teacher_logits`."""
    sampled_ids: bool = True
    """Whether the student's tokenizer is the one that sampled the responses."""
    chat_template: str | None = None
    validation: Sequence[Example] = ()
    """Measured while training, never learnt from."""
    state: Path | None = None
    """Folder for what an interrupted training goes on from, `step-N` behind step N; of an earlier try, too."""
    cache: Path | None = None
    """Folder for what methods keep beside the store, by content; other jobs may find it there."""
    report: Callable[[int, int, JsonObject], None] = field(default=lambda step, steps, metrics: None)
    """Told (step, steps, metrics) after every optimiser step, and of step 0 where something is measured before."""
    say: Callable[[str], None] = field(default=lambda line: None)
    """Told what a person should see; text, never markup."""
    stop: Callable[[], bool] = field(default=lambda: False)
    """Asked before every step by methods that, told to, save their state and raise `KeyboardInterrupt`."""


class Checkpoint(Value):
    """A trained model on disk: an ordinary Hugging Face directory."""

    path: Path
    steps: int
    tokens: int
    """Unique tokens computed, over all steps."""
    preflight: Mapping[str, Any] = {}
    """What was checked before the first update, with the figures."""


class Method(Protocol):
    """A way of training a student."""

    def train(self, job: Job) -> Checkpoint:
        """Train and write the checkpoint to `job.output`; the same job gives the same weights, on a GPU to rounding."""
        ...
