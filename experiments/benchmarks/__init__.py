"""Speed, measured: against the ceilings of this machine, against other libraries, against size."""
