"""The report: what a store holds, as pages that open from disk and ask nobody for anything."""

from dadpo_bench.report.site import Site
from dadpo_bench.report.writing import write_report

__all__ = ["Site", "write_report"]
