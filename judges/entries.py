"""What this package registers: judges, and the parts of chat judges; what entries point to is imported when used."""

from dadpo_bench.registry import BackendEntry, JudgeEntry, ParserEntry, TemplateEntry

pmi = JudgeEntry(
    name="pmi",
    summary="how much more likely the prompt makes what the response adds (nats a novel token; a proxy)",
    target="judges.likelihood:Pmi",
    config="judges.likelihood:PmiConfig",
    source="Li et al. 2016 (arXiv 1510.03055); Holtzman et al. 2021 (arXiv 2104.08315)",
    kind="pointwise",
    argument="model",
    proxy=True,
    teacher=True,
)

gptscore = JudgeEntry(
    name="gptscore",
    summary="mean log-prob of the response (a proxy that loves repetition: the cautionary example)",
    target="judges.likelihood:GptScore",
    config="judges.likelihood:LikelihoodConfig",
    source="Fu et al. 2023 (arXiv 2302.04166)",
    kind="pointwise",
    argument="model",
    proxy=True,
    teacher=True,
)

longer = JudgeEntry(
    name="longer",
    summary="the longer response wins: the null judge that every judge must differ from",
    target="judges.longer:Longer",
    kind="pointwise",
    proxy=True,
)

reward = JudgeEntry(
    name="reward",
    summary="a reward model on this machine rates the whole conversation",
    target="judges.reward:Reward",
    config="judges.reward:RewardConfig",
    source="as used with Skywork-Reward-V2: Liu et al. 2025 (arXiv 2507.01352)",
    kind="pointwise",
    argument="model",
)

chat = JudgeEntry(
    name="chat",
    summary="a chat model compares the two responses",
    target="judges.chat:Chat",
    config="judges.chat:config",
    source="Zheng et al. 2023 (arXiv 2306.05685)",
    kind="pairwise",
    argument="model",
)

chat_score = JudgeEntry(
    name="chat-score",
    summary="a chat model rates each turn of one response from 1 to 10",
    target="judges.chat_score:ChatScore",
    config="judges.chat_score:config",
    source="Zheng et al. 2023 (arXiv 2306.05685)",
    kind="pointwise",
    argument="model",
)

panel = JudgeEntry(
    name="panel",
    summary="several judges: what most of them say, or what they say on average",
    target="judges.panel:Panel",
    config="judges.panel:PanelConfig",
    source="Verga et al. 2024 (arXiv 2404.18796)",
    kind="pairwise",
    argument="members",
)

endpoint = BackendEntry(
    name="endpoint",
    summary="any OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, llama.cpp, transformers serve",
    target="judges.backends.endpoint:Endpoint",
    config="judges.backends.endpoint:EndpointConfig",
    answering="judges.answering:Answering",
    scoring="judges.scoring:Scoring",
)

local = BackendEntry(
    name="local",
    summary="a Hugging Face chat model in this process, in batches: a directory, a hub id or the embedded model",
    target="judges.backends.local:Local",
    config="judges.backends.local:LocalConfig",
)

batch = BackendEntry(
    name="batch",
    summary="OpenAI's Batch API: within 24 hours, for half the price",
    target="judges.backends.batch:Batch",
    config="judges.backends.batch:BatchConfig",
    source="developers.openai.com/api/docs/guides/batch",
)

pairwise = TemplateEntry(
    name="pairwise",
    summary="reasons, then one of three labels; with the reference answer where the prompt has one",
    target="judges:templates/pairwise.toml",
    kind="pairwise",
)
five_level = TemplateEntry(
    name="five-level",
    summary="reasons, then A>>B, A>B, A=B, B>A or B>>A",
    target="judges:templates/five-level.toml",
    kind="pairwise",
)
checklist = TemplateEntry(
    name="checklist",
    summary="goes through the prompt's checklist for both, then one of three labels",
    target="judges:templates/checklist.toml",
    kind="pairwise",
)
graded = TemplateEntry(
    name="graded",
    summary="one letter; the preference is its log-probs' P(A) / (P(A) + P(B))",
    target="judges:templates/graded.toml",
    kind="pairwise",
)
score = TemplateEntry(
    name="score",
    summary="reasons, then a rating from 1 to 10",
    target="judges:templates/score.toml",
    kind="pointwise",
)


def _parser(name: str, summary: str, source: str = "", *, rates: bool = False, logprobs: bool = False) -> ParserEntry:
    return ParserEntry(
        name=name,
        summary=summary,
        target=f"judges.parsers:{name.replace('-', '_')}",
        source=source,
        kind="pointwise" if rates else "pairwise",
        logprobs=logprobs,
    )


last_label = _parser("last-label", "the last of the offered labels")
rating = _parser("rating", "the last [[number]], if it lies on the scale", rates=True)
verdict_token = _parser(
    "verdict-token", "log-probs of the last token that is a label; space around it is ignored", logprobs=True
)
first_token = _parser(
    "first-token", "log-probs of the first token, labels matched exactly", "AlpacaEval", logprobs=True
)
last_token = _parser("last-token", "log-probs of the last token, labels matched exactly", "AlpacaEval", logprobs=True)
ranking = _parser("ranking", "the rank of the first model in a list of {'model': …, 'rank': …}", "AlpacaEval")
line_label = _parser("line-label", "the one label that lines begin with", "AlpacaEval")
score_pair = _parser("score-pair", "two scores on the first line", "AlpacaEval")
fastchat_rating = _parser("fastchat-rating", "the last [[number]], else the last [number]", "FastChat", rates=True)
result = _parser("result", "the label behind the last [RESULT] or **Result:**", "Prometheus 2, Selene")
result_rating = _parser(
    "result-rating", "the whole number behind the last [RESULT] or **Result:**", "Prometheus 2, Selene", rates=True
)
json_choice = _parser("json-choice", 'the label of the last "Choice": "…"', "CompassJudger-2")
arena_hard = _parser("arena-hard", "the one [[A>>B]]-like label, however often", "Arena-Hard")
