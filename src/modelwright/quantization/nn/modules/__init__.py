"""The path `nn.modules.tensor_quantizer` of pytorch-quantization."""
