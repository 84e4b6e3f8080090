"""What others sent, fit for a terminal: nothing in it moves a cursor, rings or colours."""


def plain(text: str) -> str:
    """Return ``text`` with every character that does not print written out as its escape sequence."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
