"""Who runs which pass when: pipeline schedules as data, and orders of one's own."""

from simulator.program.schedules import dualpipe, zero_bubble  # noqa: F401  # they register their schedules
