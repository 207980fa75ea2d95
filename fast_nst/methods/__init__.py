"""LightningModules, one a method: what a training step does."""
