"""Bytes that one contender needs, measured where nothing else is held: in a process of its own.

On a CPU that is the process's resident memory: unlike a profiler of torch's allocator it sees what the products of
matrices set aside for themselves. On an accelerator torch's allocator is all there is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_own_process(script: str, *arguments: str) -> Any:
    """What a script prints as its last line, in JSON."""
    command = [sys.executable, str(Path(script).resolve()), *arguments]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
