"""The subcommands: options, one call of the core, a report. No maths here."""
