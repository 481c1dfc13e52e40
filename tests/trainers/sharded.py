"""`sharded.py JOB`: the worker with its model sharded by FSDP2 on the CPU, a state behind every step.

torch shards on the CPU too; accelerate alone turns FSDP into plain data parallelism there, so it is told otherwise.
"""

import math
from typing import Any

import accelerate
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule

from dadpo_bench import worker
from trainers import checkpoint, loop


class Sharding(accelerate.Accelerator):
    distributed_type = property(lambda self: DistributedType.FSDP)  # type: ignore[assignment]
    is_fsdp2 = property(lambda self: True)  # type: ignore[assignment]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            state_dict_type="SHARDED_STATE_DICT",
            cpu_ram_efficient_loading=False,
        )
        self.state._shared_state["distributed_type"] = DistributedType.FSDP

    def prepare(self, *given: Any) -> Any:
        policy, *rest = super().prepare(*given)
        layers = policy.model.get_decoder().layers
        assert all(isinstance(layer, FSDPModule) for layer in layers), "a step would gather all weights at once"
        return policy, *rest


if __name__ == "__main__":
    loop.Accelerator = Sharding  # type: ignore[misc]
    checkpoint.SAVE_SECONDS, checkpoint.SAVE_SHARE = 0, math.inf
    worker.main()
