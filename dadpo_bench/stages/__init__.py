"""The stages of `run`: each asks the store what is owed, has it worked on, and writes what comes back."""

from enum import StrEnum


class Stage(StrEnum):
    """Where `--until` can stop."""

    models = "models"
    teacher_responses = "teacher-responses"
    dsft = "dsft"
    student_responses = "student-responses"
    signals = "signals"
    train = "train"
    responses = "responses"
    judge = "judge"
    score = "score"
