"""The command `caliper`, also as `python -m caliper`: what its imports take may be interrupted, too."""

from caliper.utils.early import end_at_signals


def main() -> None:
    """Runs the command line."""
    end_at_signals()
    from caliper.cli import main as command

    command()


if __name__ == "__main__":
    main()
