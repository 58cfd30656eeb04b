"""The one exception that this package raises on purpose (it imports nothing of `step`)."""


class PluginError(Exception):
    """Says what is wrong, the value, and what to do, in one line."""
