"""Export a trained network: an ONNX file, a program of torch.export, or a web page."""
