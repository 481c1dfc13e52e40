"""Registers IPO. The entry is light: what it points to is imported when the method is used."""

from dadpo_bench.registry import MethodEntry

ipo = MethodEntry(
    name="ipo",
    summary="Identity preference optimisation: the margin is drawn to 1/(2β), not to infinity",
    target="ipo_method:method",
    config="ipo_method:IPOConfig",
    source="Azar et al. 2023, arXiv 2310.12036",
    data="pairs",
    signals=("reference",),
)
