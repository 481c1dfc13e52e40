"""Output that nobody reads on, as in `dadpo-bench … | head -1`, ends the program without a word."""

import os
import subprocess
import sys

import pytest

from tests.conftest import environment


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "methods"],
        ["list", "judges", "--json"],
        ["show", "methods", "dadpo"],
        ["show", "recipes", "smollm2-135m-pruned20"],
        ["run", "--help"],
        ["--version"],
    ],
)
def test_a_broken_pipe_is_no_failure_to_tell_of(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dadpo_bench", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment(), check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
