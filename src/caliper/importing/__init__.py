"""Recordings of the robosuite family become datasets: recognised, proven, translated."""
