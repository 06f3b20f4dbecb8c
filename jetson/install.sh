#!/usr/bin/env bash
# The installation of the clinic's box, for a Jetson: options as `box/install.sh --help` says.
exec "$(dirname "$(readlink -f "$0")")/../box/install.sh" --jetson "$@"
