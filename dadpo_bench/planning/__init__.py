"""What a run costs, told before it: what every stage computes, and what that takes of a machine.

From a plan to loads (`workload`), from loads and the models' sizes to bytes, FLOPs and hours (`shapes`, `footprint`,
`hardware`, `forecast`), and to the minutes of a run on this machine (`dry_run`). No weights are loaded.
"""

from dadpo_bench.gpus import GPUS, Hardware
from dadpo_bench.planning.dry_run import Cost, estimate
from dadpo_bench.planning.footprint import Memory
from dadpo_bench.planning.forecast import ROOM, Forecast, Setting, forecast_of
from dadpo_bench.planning.hardware import hardware_of
from dadpo_bench.planning.load import Ask, Load, Prune, Rollouts, Sample, Score, Train
from dadpo_bench.planning.shapes import Shapes, shapes_of
from dadpo_bench.planning.workload import FILLED, loads

__all__ = [
    "FILLED",
    "GPUS",
    "ROOM",
    "Ask",
    "Cost",
    "Forecast",
    "Hardware",
    "Load",
    "Memory",
    "Prune",
    "Rollouts",
    "Sample",
    "Score",
    "Setting",
    "Shapes",
    "Train",
    "estimate",
    "forecast_of",
    "hardware_of",
    "loads",
    "shapes_of",
]
