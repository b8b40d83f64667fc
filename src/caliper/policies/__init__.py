"""Policies that leave the house: as a folder, opened with torch alone, and served to other programs."""
