"""PyTorch: backbone x task -> checkpoint."""
