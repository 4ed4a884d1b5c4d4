"""The real MONAI Label server with our bundles, asked over its REST API."""
