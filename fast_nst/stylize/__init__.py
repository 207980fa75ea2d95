"""Run a trained network on images, by torch or by onnxruntime."""
