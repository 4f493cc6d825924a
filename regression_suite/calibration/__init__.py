"""How the gate's decisions hold up: thousands of simulated gates on known distributions.

`make calibration` writes the committed table, `docs/calibration.md` and `docs/calibration-*.csv`.
Nothing is played: returns are drawn from distributions whose truth is known, and decided by the
same betting capital, thresholds, looks and budgets as `regression_suite.checks` (a test holds the
two against each other).
"""
