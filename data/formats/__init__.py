"""Files of recordings (our own, robomimic's, Minari's, Adroit's): read as a stranger's, written whole."""
