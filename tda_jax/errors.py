class InputError(ValueError):
    """Input that cannot be used.

    The message names the cause, the value that was found and the remedy, in that order, and is
    raised before memory or time is spent on the work it would spoil.
    """
