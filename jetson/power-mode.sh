#!/usr/bin/env bash
# Set the power mode and clocks of a Jetson, and record what they are: figures without them mean nothing.
set -euo pipefail

usage() {
  cat << 'END'
usage: power-mode.sh show
       sudo power-mode.sh set MODE [--clocks] [--dry-run]

  show       print mode, clocks, swap and memory as JSON (no root needed where nvpmodel allows)
  set MODE   a number of `nvpmodel -p --verbose`, or maxn
  --clocks   also hold the clocks at their maximum (jetson_clocks)

Example: sudo power-mode.sh set maxn --clocks
END
}

die() { echo "error: $*" >&2; exit 1; }

root=${JETSON_ROOT:-}
dry_run=""

# First word of a file below /sys or /proc, or null.
value() {
  local text=""
  [ -r "$root$1" ] && text=$(tr -d '\0' < "$root$1" | head -1)
  if [ -z "$text" ]; then echo null; else printf '"%s"' "${text//\"/}"; fi
}

mode_name() {
  local text=""
  if command -v nvpmodel > /dev/null; then
    text=$(nvpmodel -q 2> /dev/null | sed -n 's/^NV Power Mode: *//p' | head -1) || true
  fi
  if [ -z "$text" ]; then echo null; else printf '"%s"' "$text"; fi
}

gpu_clock() {
  local file
  for file in "$root"/sys/class/devfreq/*gpu*/cur_freq "$root"/sys/class/devfreq/*ga10b*/cur_freq; do
    [ -r "$file" ] && { value "${file#"$root"}"; return; }
  done
  echo null
}

kilobytes() { sed -n "s/^$1: *\([0-9]*\) kB/\1/p" "$root/proc/meminfo" | grep . || echo null; }

show() {
  cat << END
{
  "model": $(value /proc/device-tree/model),
  "release": $(value /etc/nv_tegra_release),
  "power_mode": $(mode_name),
  "cpu_governor": $(value /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor),
  "cpu_khz": $(value /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq),
  "cpu_maximum_khz": $(value /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq),
  "gpu_hz": $(gpu_clock),
  "memory_kb": $(kilobytes MemTotal),
  "memory_available_kb": $(kilobytes MemAvailable),
  "contiguous_free_kb": $(kilobytes CmaFree),
  "swap_kb": $(kilobytes SwapTotal)
}
END
}

change() {
  echo "+ $*" >&2
  [ -n "$dry_run" ] || "$@" || die "'$*' failed; run as root on a Jetson"
}

case ${1:-} in
  show) show ;;
  set)
    mode=${2:-}
    shift $(($# < 2 ? $# : 2))
    clocks=""
    for option in "$@"; do
      case $option in
        --clocks) clocks=1 ;;
        --dry-run) dry_run=1 ;;
        *) usage >&2; exit 2 ;;
      esac
    done
    # MAXN is mode 0 on AGX Orin and Orin NX, another number elsewhere: look it up by its name.
    if [ "$mode" = maxn ]; then
      configuration=$root/etc/nvpmodel.conf
      [ -r "$configuration" ] || die "$configuration is missing: not a Jetson?"
      mode=$(sed -n 's/.*POWER_MODEL *ID=\([0-9]*\) *NAME=MAXN.*/\1/p' "$configuration" | tail -1)
      [ -n "$mode" ] || die "$configuration has no MAXN mode"
    fi
    case $mode in '' | *[!0-9]*) usage >&2; exit 2 ;; esac
    change nvpmodel -m "$mode"
    [ -z "$clocks" ] || change jetson_clocks
    show
    ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
