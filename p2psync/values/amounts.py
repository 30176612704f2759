"""Sizes and counts, as people read them."""

_UNITS = ("B", "KB", "MB", "GB", "TB")


def size(count: int | None) -> str:
    """``count`` bytes: “850 B”, “2.1 MB”, in steps of a thousand, as file managers show them; “–” for None."""
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"


def count(number: int, one: str, many: str | None = None) -> str:
    """“1 file”, “3 files”."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def amount(files: int, bytes_: int) -> str:
    """“3 files, 2.1 MB”."""
    return f"{count(files, 'file')}, {size(bytes_)}"
