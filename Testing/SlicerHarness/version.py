"""Which Slicer the harness behaves as, where the supported ones differ."""

VERSIONS = ("5.10", "5.12")
OLDEST, CURRENT = VERSIONS[0], VERSIONS[-1]

_number = CURRENT


def behave_as(number: str) -> None:
    """Raises ValueError for a version that isn't known."""
    global _number
    if number not in VERSIONS:
        raise ValueError(f"the harness behaves as Slicer {' or '.join(VERSIONS)}, not {number}")
    _number = number


def minor() -> int:
    """The second part of the version: 10 or 12."""
    return int(_number.partition(".")[2])


def is_current() -> bool:
    """Whether it is 5.12 rather than 5.10."""
    return _number == CURRENT
