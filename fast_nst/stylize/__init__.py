"""Run a trained network on images, with torch or onnxruntime."""
