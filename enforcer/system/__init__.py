"""Files, directories, log and standard streams of this process. Nothing that others control is trusted."""
