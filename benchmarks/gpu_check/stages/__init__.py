"""One module a stage; each is a program."""
