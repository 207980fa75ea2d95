"""Shared by all methods: optimizers, schedules, callbacks, checkpoints and resume."""
