"""`anytime-server` whose own process gives freed memory back at once.

By default it keeps up to 64 MiB for what comes next (`process_memory.keep_freed_memory`), so that
what it has in RAM says little about what it holds.
"""

from anytime_server import process_memory
from anytime_server.cli import main

if __name__ == "__main__":
    process_memory._KEPT = process_memory._OWN_MAPPING = 128 * 1024  # glibc's own
    main()
