"""What every method shares: optimizers, schedules, callbacks, checkpoints and resume."""
