#!/usr/bin/env bash
# Install edge-medgemma on a bare JetPack 7.2 as a service that triages what is plugged in.
set -euo pipefail

usage() {
  cat << 'END'
usage: sudo jetson/install.sh [options]

  --engine DIR    engine directory to use for plugged-in media; without one, or with the demo
                  engine, the service refuses every medium
  --wheels DIR    install from the wheels of this folder, without a network
  --swap GB       also make a swap file of this size (an 8 GB Orin Nano: 8)
  --headless      do not start a desktop any more (frees about 0.8 GB)
  --root DIR      stage all files below DIR instead of / and run no system command
  --dry-run       print every step and do none
  --uninstall     remove service, rules and program; reports and engines stay
  -h, --help

Example: sudo jetson/install.sh --engine /srv/engines/medgemma --swap 8 --headless
END
}

here=$(cd "$(dirname "$0")" && pwd)
engine="" wheels="" swap_gb="" headless="" root="" dry_run="" uninstall=""
while [ $# -gt 0 ]; do
  case $1 in
    --engine | --wheels | --swap | --root)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      case $1 in
        --engine) engine=$2 ;; --wheels) wheels=$2 ;; --swap) swap_gb=$2 ;; --root) root=$2 ;;
      esac
      shift ;;
    --headless) headless=1 ;;
    --dry-run) dry_run=1 ;;
    --uninstall) uninstall=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

prefix=$root/opt/edge-medgemma
units=$root/etc/systemd/system
rules=$root/etc/udev/rules.d
settings=$root/etc/edge-medgemma
state=$root/var/lib/edge-medgemma

die() { echo "error: $*" >&2; exit 1; }

# A step that changes files; with --dry-run it is only printed.
change() {
  echo "+ $*"
  [ -n "$dry_run" ] || "$@"
}

# A step that changes the running system; with --root it is only printed.
system() {
  if [ -n "$root" ]; then echo "# $*"; else change "$@"; fi
}

check_machine() {
  [ -z "$root$dry_run" ] || return 0
  [ "$(id -u)" = 0 ] || die "run as root: sudo $0"
  [ "$(uname -m)" = aarch64 ] || die "this is $(uname -m), expected aarch64"
  local release="" file=/etc/nv_tegra_release
  [ -r $file ] && release=$(sed -n 's/^# R\([0-9]*\).*/\1/p' $file)
  [ -n "$release" ] || die "$file is missing: not a Jetson with Jetson Linux"
  [ "$release" -ge 39 ] || die "Jetson Linux $release found, 39.2 (JetPack 7.2) expected; \
its TensorRT is too old for this model"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or later expected"
}

check_choices() {
  [ -z "$engine" ] || [ -f "$engine/manifest.json" ] || die "'$engine' is not an engine directory"
  [ -z "$wheels" ] || [ -d "$wheels" ] || die "'$wheels' is not a folder of wheels"
  case $swap_gb in *[!0-9]*) die "--swap '$swap_gb': a whole number of GB expected" ;; esac
}

install_program() {
  change mkdir -p "$prefix"
  # --system-site-packages: TensorRT's Python module is JetPack's own
  system python3 -m venv --system-site-packages "$prefix/venv"
  if [ -n "$wheels" ]; then
    system "$prefix/venv/bin/pip" install --no-index --find-links "$wheels" 'edge-medgemma[cpu,tensorrt]'
  else
    system "$prefix/venv/bin/pip" install "$here/..[cpu,tensorrt]"
  fi
}

install_service() {
  system useradd --system --home-dir /var/lib/edge-medgemma --shell /usr/sbin/nologin edge-medgemma
  system usermod --append --groups video,render edge-medgemma
  change install -d -m 755 "$units" "$rules" "$settings" "$prefix/bin"
  change install -d -m 700 "$state" "$state/reports"
  system chown -R edge-medgemma: /var/lib/edge-medgemma
  change install -m 755 "$here/triage-media.sh" "$here/power-mode.sh" "$prefix/bin/"
  change install -m 644 "$here"/systemd/*.service "$units/"
  change install -m 644 "$here"/udev/*.rules "$rules/"
  local file=$settings/settings.env
  if [ -e "$file" ]; then
    echo "# $file stays as it is"
  else
    echo "+ write $file"
    [ -n "$dry_run" ] || printf '%s\n' "# Read by edge-medgemma-media@.service" \
      "EDGE_MEDGEMMA_ENGINE=$engine" "EDGE_MEDGEMMA_SLICES=" > "$file"
  fi
  system systemctl daemon-reload
  system udevadm control --reload
}

tune_machine() {
  if [ -n "$swap_gb" ] && [ "$swap_gb" -gt 0 ]; then
    system fallocate -l "${swap_gb}G" /var/swap-edge-medgemma
    system chmod 600 /var/swap-edge-medgemma
    system mkswap /var/swap-edge-medgemma
    system swapon /var/swap-edge-medgemma
    grep -qs swap-edge-medgemma "$root/etc/fstab" \
      || system sh -c 'echo "/var/swap-edge-medgemma none swap sw,nofail 0 0" >> /etc/fstab'
  fi
  [ -z "$headless" ] || system systemctl set-default multi-user.target
}

remove_all() {
  system systemctl stop 'edge-medgemma-media@*'
  change rm -f "$units/edge-medgemma-media@.service" "$units/edge-medgemma-power.service" \
    "$rules/90-edge-medgemma-media.rules"
  change rm -rf "$prefix"
  system systemctl daemon-reload
  system udevadm control --reload
  echo "reports in $state and settings in $settings were left"
}

check_machine
if [ -n "$uninstall" ]; then
  remove_all
  exit
fi
check_choices
install_program
install_service
tune_machine
echo "done; plug in a stick or CD, reports come to /var/lib/edge-medgemma/reports"
echo "check the device with: $prefix/venv/bin/edge-medgemma doctor"
