"""The Model Zoo's verification of a bundle, offline, for `ci/verify_bundles`."""
