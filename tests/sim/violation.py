"""What is raised when something that K2 promises is not so."""


class Violation(BaseException):
    """K2 broke a guarantee, or the simulation is wrong.

    No `Exception`: it is raised in the midst of K2, which lives through those.
    """


def require(true, what, *details):
    if not true:
        raise Violation(f"{what}: {', '.join(map(str, details))}")
