"""Quality assessment: the picture of a product, from what its programs say."""
