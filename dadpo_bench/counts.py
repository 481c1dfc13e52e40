"""Numbers with what they count, as people say them."""


def counted(number: int, what: str) -> str:
    """E.g. `1 training`, `1,024 trainings`, of a plural that ends in -s."""
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"
