"""What a run costs, told before it: what every stage computes, and what that takes of a machine.

From a plan to loads (`workload`), from loads and the models' sizes to bytes, FLOPs and hours (`shapes`, `footprint`,
`hardware`, `forecast`), to the places of a cluster (`items`, `placement`), and to the minutes of a run on this machine
(`dry_run`). No weights are loaded.
"""

from dadpo_bench.gpus import GPUS, Hardware
from dadpo_bench.planning.dry_run import Cost, estimate
from dadpo_bench.planning.footprint import Memory
from dadpo_bench.planning.forecast import ROOM, Forecast, Setting, forecast_of
from dadpo_bench.planning.hardware import hardware_of
from dadpo_bench.planning.items import Step, Where, steps
from dadpo_bench.planning.load import Ask, Load, Prune, Rollouts, Sample, Score, Train
from dadpo_bench.planning.placement import Cluster, Placed, Placement, Time, cluster_of, makespan, place
from dadpo_bench.planning.shapes import Shapes, shapes_of
from dadpo_bench.planning.workload import FILLED, loads

__all__ = [
    "FILLED",
    "GPUS",
    "ROOM",
    "Ask",
    "Cluster",
    "Cost",
    "Forecast",
    "Hardware",
    "Load",
    "Memory",
    "Placed",
    "Placement",
    "Prune",
    "Rollouts",
    "Sample",
    "Score",
    "Setting",
    "Shapes",
    "Step",
    "Time",
    "Train",
    "Where",
    "cluster_of",
    "estimate",
    "forecast_of",
    "hardware_of",
    "loads",
    "makespan",
    "place",
    "shapes_of",
    "steps",
]
