"""The training methods, each a LightningModule."""
