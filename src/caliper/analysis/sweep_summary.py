"""What `caliper sweep` leaves: a table of its variants and their curves, made as those of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from caliper.analysis.comparison_plots import success
from caliper.analysis.plots import draw
from caliper.analysis.run_table import text_table, write_runs, write_table
from caliper.analysis.variant import gather, without_intervals
from caliper.utils.files import replacing


def write_sweep(folder: Path, runs: Sequence[tuple[str, Path]]) -> str:
    """Writes runs.json, runs.csv, variants.csv and curves.png into a folder, of runs finished or not.

    Args:
        folder: where the files go.
        runs: (variant, run folder); what is not there yet is left out. Numbers are of finished runs; the
            curves show the others as far as they have got.

    Returns:
        The table of variants as text.
    """
    variants = gather(runs, write_runs(folder, runs))
    rows = [variant.row() for variant in variants]
    write_table(folder / "variants.csv", rows)
    if (fig := draw(success, variants)) is not None:
        with replacing(folder / "curves.png") as partial:
            fig.savefig(partial, dpi=160, format="png")
    return text_table(without_intervals(rows))
