"""The command `fastvlm`: thin; parses, calls, prints."""

from dl_techniques.cli import clock as clock  # the clock starts first
