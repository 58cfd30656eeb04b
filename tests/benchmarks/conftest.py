"""torchvision is made to load before a test file imports it."""

from torchvision_on_cpu import load_torchvision

load_torchvision()
