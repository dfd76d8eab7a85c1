"""What both halves share: loop, schedules, fitting, networks, shuffle, checkpoint. Imports nothing of ours."""
