"""Numbers with what they count, as people say them."""


def counted(number: int, what: str) -> str:
    """E.g. `1 training`, `1,024 trainings`, of a plural that ends in -s."""
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def pace(rate: float) -> str:
    """A rate a second, the slow one by what one item takes."""
    return f"{rate:,.1f}/s" if rate >= 1 else f"{lasting(1 / rate)} each"


def lasting(seconds: float) -> str:
    """A time in the unit in which it is easily read."""
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.1f} s"
