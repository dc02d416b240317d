"""`python -m edgeproxy` is the same program as `edgeproxy`."""

from edgeproxy.cli import main

raise SystemExit(main())
