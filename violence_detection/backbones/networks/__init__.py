"""One file a network: each registers its backbones, with all that is known of them."""
