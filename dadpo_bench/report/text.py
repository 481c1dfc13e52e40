"""Other people's text as it is shown: what would not be seen, or would reorder what is, becomes visible."""

from __future__ import annotations

import re

# Controls but tab and newline; bidirectional marks, overrides and isolates; blanks and fillers without width; halves of
# surrogate pairs; tags and variation selectors in planes of their own. Joiners (U+200C, U+200D) make letters and emoji.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Characters that a reader could not see, as ⟨U+202E⟩."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))
