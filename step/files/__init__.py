"""Writing files and folders so that nobody ever sees half of one."""
