"""A trained model as files that other programs run: ONNX, OpenVINO, TFLite."""
