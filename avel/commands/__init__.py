"""Commands of the command line: each parses, calls, prints."""
