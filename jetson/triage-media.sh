#!/bin/sh
# Triage a mounted medium: triage-media.sh MOUNT_FOLDER REPORTS_FOLDER
# The report's folder is named by the clock alone: labels of media may hold patients' names.
set -eu

medium=${1:?usage: triage-media.sh MOUNT_FOLDER REPORTS_FOLDER}
reports=${2:?usage: triage-media.sh MOUNT_FOLDER REPORTS_FOLDER}
program=${EDGE_MEDGEMMA_PROGRAM:-/opt/edge-medgemma/venv/bin/edge-medgemma}

out=$(mktemp -d "$reports/$(date -u +%Y%m%dT%H%M%SZ)-XXXX")
# What is plugged in here is of a patient: no engine that knows none may speak about it.
set -- triage "$medium" --out "$out" --exit-code --require-real-engine
[ -z "${EDGE_MEDGEMMA_ENGINE:-}" ] || set -- "$@" --engine "$EDGE_MEDGEMMA_ENGINE"
[ -z "${EDGE_MEDGEMMA_SLICES:-}" ] || set -- "$@" --slices "$EDGE_MEDGEMMA_SLICES"

status=0
"$program" "$@" > "$out/triage.txt" 2>&1 || status=$?
case $status in
  0) word=routine ;;
  3) word=not_assessable ;;
  10) word=urgent ;;
  20) word=critical ;;
  *) word=failed ;;
esac
printf '%s\n' "$word" > "$out/urgency.txt"
# The journal learns the urgency and the folder, nothing of the patient.
echo "$word: $out"
# A medium without a readable scan is no fault of the service, yet must not look like a result.
[ "$word" != failed ] || exit 1
