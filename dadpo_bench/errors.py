"""The two ways a command may fail: the user's input was wrong, or the work itself went wrong."""


class UserError(Exception):
    """Something the user can mend. Shown as one line that names the remedy; exit code 2."""


class WorkError(Exception):
    """The work failed through no fault of the input (a full disk, a dead endpoint). One line; exit code 1."""
