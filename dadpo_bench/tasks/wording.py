"""The words of a prompt, without what makes no difference: case, spacing, punctuation, and forms of one letter."""

from __future__ import annotations

import re
import unicodedata

from dadpo_bench.types import Prompt

# Scripts that are written without blanks count by the character.
_DENSE = r"぀-ヿ㐀-鿿豈-﫿\U00020000-\U0003ffff฀-๿"
_WORD = re.compile(rf"[{_DENSE}]|(?:(?![{_DENSE}])\w)+")


def words(prompt: Prompt) -> list[str]:
    """Of all turns, in order."""
    return words_of("\n".join(prompt.turns))


def words_of(text: str) -> list[str]:
    """Compatibility forms made one (NFKC), case folded; letters and digits of any script."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
