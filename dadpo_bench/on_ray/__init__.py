"""The engine on a Ray cluster: placement, retries, back-pressure, lost machines and autoscaling are Ray's.

Stages that map go through Ray Data's actor pools (`stream`); trainings are tasks of their own (`training`). Workers
know no store: what they make is streamed to the process that was started, which alone writes it. Models and checkpoints
lie where every machine sees them; see `engine.artefacts`.
"""

from dadpo_bench.on_ray.engine import RayEngine

__all__ = ["RayEngine"]
