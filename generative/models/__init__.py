"""One file per model; models never import each other."""
