"""The judges this package registers: light entries, what they point to is imported when used."""

from dadpo_bench.registry import JudgeEntry

pmi = JudgeEntry(
    name="pmi",
    summary="how much more likely the prompt makes what the response adds (nats a novel token; a proxy)",
    target="judges.likelihood:Pmi",
    config="judges.likelihood:PmiConfig",
    source="Li et al. 2016 (arXiv 1510.03055); Holtzman et al. 2021 (arXiv 2104.08315)",
    kind="pointwise",
    argument="model",
    proxy=True,
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
)

longer = JudgeEntry(
    name="longer",
    summary="the longer response wins: the null judge that every judge must differ from",
    target="judges.longer:Longer",
    kind="pointwise",
    proxy=True,
)

chat = JudgeEntry(
    name="chat",
    summary="a chat model behind any OpenAI-compatible endpoint compares the two responses",
    target="judges.chat:Chat",
    config="judges.chat:ChatConfig",
    source="Zheng et al. 2023 (arXiv 2306.05685)",
    kind="pairwise",
    argument="model",
)
