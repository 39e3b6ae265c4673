"""Backbones: the networks that turn pictures into features, their weights, and the engines that run them."""
