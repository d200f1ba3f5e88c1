"""Files, directories, the log and the standard streams of this process, opened and written with distrust."""
