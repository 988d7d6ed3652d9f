"""Over everything that was asked: scores of backbones in settings, and who is ahead."""
