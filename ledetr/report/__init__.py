"""HTML reports of one file each: no script, nothing fetched from anywhere, every text escaped."""
