"""How close two ways of running a model must be, and how that is measured."""
