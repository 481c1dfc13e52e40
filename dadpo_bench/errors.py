"""How a command may end early: the user's input was wrong, the work itself went wrong, or Ctrl-C lost some of it."""


class UserError(Exception):
    """Something the user can mend. Shown as one line that names the remedy; exit code 2."""


class WorkError(Exception):
    """The work failed through no fault of the input (a full disk, a dead endpoint). One line; exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C behind which the same command does not go on just there; its text says from where. Exit code 130."""
