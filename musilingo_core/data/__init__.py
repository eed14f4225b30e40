"""Training and test data: manifests of examples, and how the starter's were made."""
