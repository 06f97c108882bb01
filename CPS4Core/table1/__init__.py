"""Table 1 of the paper in one command: every system, labelled ratio and seed, their scores and one report."""
