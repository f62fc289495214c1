"""The one exception a user is meant to see."""


class UserError(Exception):
    """What went wrong, which value, what would be right: printed as one line, exit code 2.

    Everything else that is raised is a bug and shows its traceback.
    """
