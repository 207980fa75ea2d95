"""Export a trained network to an ONNX file, a torch.export program or a web page."""
