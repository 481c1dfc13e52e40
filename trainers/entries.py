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
dpkd = MethodEntry(
    name="dpkd",
    summary="DPO with the teacher as reference, log-ratios averaged over tokens",
    target="trainers.dpkd:method",
    config="trainers.dpkd:DPKDConfig",
    source="Li et al. 2024, arXiv 2406.19774",
    data="pairs",
    signals=("teacher",),
)
distillm2 = MethodEntry(
    name="distillm2",
    summary="Skew KL on the teacher's responses, skew reverse KL on the student's own",
    target="trainers.distillm2:method",
    config="trainers.distillm2:DistiLLM2Config",
    source="Ko et al. 2025, arXiv 2503.07067",
    data="pairs",
    signals=("teacher_logits",),
)
on_policy_kd = MethodEntry(
    name="on_policy_kd",
    summary="Policy gradient on the student's own rollouts, each token rewarded by the teacher's log-prob of it",
    target="trainers.on_policy_kd:method",
    config="trainers.on_policy_kd:OnPolicyKDConfig",
    source="Agarwal et al. 2024, arXiv 2306.13649; Gu et al. 2024, arXiv 2306.08543",
    signals=("teacher_logits",),
    start="dsft",
    rollouts=True,
)
