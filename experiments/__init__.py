"""The floor that prints, writes files and owns a clock: command line, presets, run folders, plots."""
