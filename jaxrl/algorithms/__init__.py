"""One file per algorithm; algorithms never import each other."""
