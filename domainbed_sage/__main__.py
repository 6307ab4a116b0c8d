"""`python -m domainbed_sage` is the command `domainbed-sage`."""

import sys

from domainbed_sage.cli import main

sys.exit(main())
