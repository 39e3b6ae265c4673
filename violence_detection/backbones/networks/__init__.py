"""The networks, one per file. Each file registers its backbones, with everything that the package knows of them."""
