"""`python -m edgeproxy.pages DIR`: the preview without the rest of edgeproxy."""

import argparse
import sys

from . import add_arguments, main

parser = argparse.ArgumentParser(
    prog="python -m edgeproxy.pages", description="Preview a site as GitHub Pages would serve it."
)
add_arguments(parser)
sys.exit(main(parser.parse_args()))
