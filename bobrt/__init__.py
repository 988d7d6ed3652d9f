"""The words everyone shares, and the command line.

Importing this package loads no torch, timm, onnx, onnxruntime or tensorrt.
"""

__version__ = "0.1.0"
