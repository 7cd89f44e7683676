"""What the commands found out: as plain data (`results`), and as `text`: TSV, CSV, JSON and a kind of tables per command."""
