"""The one exception whose message is meant for the person at the keyboard."""


class StepError(Exception):
    """Bad input or an unusable environment, told in one line: what was wrong, the value, what to do.

    Command-line programs print the message and exit with code 1; everything else that is raised is a bug.
    """
