"""What runs left behind: reading it, statistics, figures, and the pages that show them."""
