"""Where the runs of a sweep go: processes here, jobs of Slurm, tasks of Ray; and how they are watched."""
