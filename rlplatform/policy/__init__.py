"""Policies that act: bundle, ONNX export, runtime, registry."""
