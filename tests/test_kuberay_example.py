"""`examples/kuberay.yaml` starts what the program takes, on pods that are alike."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Run

JOB: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "examples" / "kuberay.yaml").read_text())


def test_its_command_is_one_that_the_program_takes(bench: Run, tiny_recipe: Path) -> None:
    program, *arguments = shlex.split(JOB["spec"]["entrypoint"])
    arguments[arguments.index("--recipe") + 1] = str(tiny_recipe)
    planned = bench(*arguments, "--dry-run")
    assert (program, planned.returncode) == ("dadpo-bench", 0), planned.stderr
    assert "train" in planned.stdout


def test_its_pods_share_image_models_and_disk_but_no_secret() -> None:
    cluster = JOB["spec"]["rayClusterSpec"]
    head, workers = (group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    ours, theirs = head["containers"][0], workers["containers"][0]
    assert [ours[key] for key in ("image", "volumeMounts")] == [theirs[key] for key in ("image", "volumeMounts")]
    (models,) = theirs["env"]
    assert models in ours["env"]
    assert "secretKeyRef" in str(ours["env"])
    assert head["volumes"] == workers["volumes"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert "nvidia.com/gpu" in theirs["resources"]["limits"]
    assert ours["resources"] != theirs["resources"]


def test_its_ray_is_the_one_that_is_tested() -> None:
    pins = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
    assert f"ray=={JOB['spec']['rayClusterSpec']['rayVersion']}" in pins
