"""The methods this package registers: light entries, what they point to is imported when used."""

from dadpo_bench.registry import MethodEntry

sft = MethodEntry(
    name="sft",
    summary="Supervised fine-tuning on the teacher's responses (dSFT, sequence-level KD)",
    target="trainers.sft:method",
    config="trainers.sft:SFTConfig",
    source="Kim & Rush 2016, arXiv 1606.07947",
)
dpo = MethodEntry(
    name="dpo",
    summary="Distilled DPO: the teacher's response preferred to the student's own, reference = dSFT student",
    target="trainers.dpo:method",
    config="trainers.dpo:DPOConfig",
    source="Rafailov et al. 2023, arXiv 2305.18290; dDPO: Tunstall et al. 2023, arXiv 2310.16944",
    data="pairs",
    signals=("reference",),
)
kd = MethodEntry(
    name="kd",
    summary="Token-level divergence to the teacher's distribution on the teacher's responses",
    target="trainers.kd:method",
    config="trainers.kd:KDConfig",
    source="Hinton et al. 2015, arXiv 1503.02531; JSD: Agarwal et al. 2024, arXiv 2306.13649; "
    "skew: Ko et al. 2024, arXiv 2402.03898",
    signals=("teacher_logits",),
)
dadpo = MethodEntry(
    name="dadpo",
    summary="Distribution-aware DPO: anchored to the dSFT student and to the teacher's distribution",
    target="trainers.dadpo:method",
    config="trainers.dadpo:DaDPOConfig",
    source="Zhang et al. 2025, Findings of ACL, arXiv 2506.15717",
    data="pairs",
    signals=("reference", "teacher"),
)
