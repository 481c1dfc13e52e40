"""Write the golden files anew, after a change of a formula, template or parser that is meant.

`python -m tests.regression.regenerate [CASE…]` in the project's folder; read the diff before committing it.
"""

import json
import sys

from tests.regression.cases import CASES
from tests.regression.golden_files import FOLDER, as_stored

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(CASES)
    for name in wanted:
        text = json.dumps(as_stored(CASES[name]()), indent=1)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if wanted == list(CASES):
        for path in FOLDER.glob("*.json"):
            if path.stem not in CASES:
                path.unlink()
