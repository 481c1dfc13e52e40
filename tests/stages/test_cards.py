"""A model card says how a checkpoint was made and what a judge said of it."""

from pathlib import Path

from tests.conftest import Run


def test_a_card_stands_beside_every_checkpoint_and_a_dry_run_writes_none(
    bench: Run, tiny_recipe: Path, tiny_models: tuple[Path, Path]
) -> None:
    done = bench("run", "dadpo", "--recipe", tiny_recipe, "--store", "x.sqlite3")
    assert done.returncode == 0, done.stderr
    folder = Path(str(tiny_recipe)).parent / "x"
    cards = sorted(folder.glob("*-seed0-*/README.md"))
    assert len(cards) == 2
    card = cards[0].read_text()
    assert "# dadpo, seed 0" in card
    where = "to 6 prompts of training, split train."
    assert f"Trained on the teacher's responses and the dSFT student's own {where}" in card
    assert f"Trained on the teacher's responses {where}" in cards[1].read_text()
    assert "- teacher: " in card
    assert "| beta_teacher | 0.1 |" in card
    assert "Win rate against the teacher" in card
    for path in (folder.parent, tiny_models[0].parent, tiny_models[1].parent):
        assert str(path) not in card  # no path of this machine
    for path in cards:
        path.unlink()
    assert bench("run", "dadpo", "--recipe", tiny_recipe, "--store", "x.sqlite3", "--dry-run").returncode == 0
    assert not list(folder.glob("*/README.md"))


def test_what_others_put_beside_the_checkpoints_is_left_alone(bench: Run, tiny_recipe: Path) -> None:
    folder = Path(str(tiny_recipe)).parent / "y"
    (folder / "unfinished").mkdir(parents=True)
    for name in (".x.partial", "unfinished/notes.bak"):
        (folder / name).write_text("mine")
    done = bench("run", "sft", "--recipe", tiny_recipe, "--store", "y.sqlite3", "--until", "dsft")
    assert done.returncode == 0, done.stderr
    assert (folder / ".x.partial").exists()
    assert (folder / "unfinished" / "notes.bak").exists()
