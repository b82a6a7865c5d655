"""Storage pools: views over the inventory, whose volumes are devices; only definitions are kept."""
