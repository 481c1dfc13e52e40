"""dadpo-bench: which distillation method gives the student the best conversation, and is it real?"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dadpo-bench")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
