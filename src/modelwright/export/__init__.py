"""Models as ONNX files: exporting them, running them with ONNX Runtime, and checking what became of them."""
