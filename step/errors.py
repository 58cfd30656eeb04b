"""The exceptions whose messages are meant for the person at the keyboard."""

import re
from collections.abc import Mapping

_ARGUMENT = re.compile(r"`(\w+)`")


class StepError(Exception):
    """Bad input or an unusable environment, said in one line: what was wrong, the value, what to do.

    Command-line programs print the message and exit with code 1; everything else that is raised is a bug.
    """


class ArgumentError(StepError):
    """A value that a function cannot take. The message names arguments in backticks: "`device` is 'gpu'; give cpu".

    Commands say their own options instead: "--device is 'gpu'; give cpu".
    """

    def naming(self, options: Mapping[str, str]) -> str:
        """The message with other names for the arguments.

        Args:
            options: name of an argument -> what is written for it; those that are not in it stay as they are.
        """
        return _ARGUMENT.sub(lambda found: options.get(found[1], found[0]), str(self))
