#!/usr/bin/env bash
# Install, upgrade or remove the clinic's box: a PC with Linux, or a Jetson with JetPack 7.2.
set -euo pipefail

usage() {
  cat << 'END'
usage: sudo box/install.sh [options]

  --engine DIR    engine directory to use; without one, or with the demo engine, the box receives
                  scans and refuses to judge them
  --lan           answer other machines of the local network, encrypted; else this one alone
  --wheels DIR    install from the wheels of this folder, without a network; box/wheels.sh fills it
  --kiosk         show the page on this machine's screen when somebody logs in there
  --jetson, --pc  which of the two this is; else found out
  --swap GB       also make a swap file of this size (an 8 GB Orin Nano: 8)
  --headless      do not start a desktop any more (frees about 0.8 GB)
  --root DIR      stage all files below DIR instead of / and run no system command
  --dry-run       print every step and do none
  --uninstall     remove service, rules and program; what was received, found and set stays
  --purge         with --uninstall: delete that too
  -h, --help

Run again for an upgrade: settings and studies stay, and where the new program does not start, the
old one is put back.

Example: sudo box/install.sh --engine /srv/engines/medgemma --lan
END
}

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
source=$(cd "$here/.." && pwd)
engine="" lan="" wheels="" kiosk="" machine="" swap_gb="" headless="" root="" dry_run=""
uninstall="" purge=""
while [ $# -gt 0 ]; do
  case $1 in
    --engine | --wheels | --swap | --root)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      case $1 in
        --engine) engine=$2 ;; --wheels) wheels=$2 ;; --swap) swap_gb=$2 ;; --root) root=$2 ;;
      esac
      shift ;;
    --lan) lan=1 ;;
    --kiosk) kiosk=1 ;;
    --jetson) machine=jetson ;;
    --pc) machine=pc ;;
    --headless) headless=1 ;;
    --dry-run) dry_run=1 ;;
    --uninstall) uninstall=1 ;;
    --purge) purge=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
if [ -z "$machine" ]; then
  machine=pc
  [ ! -e /etc/nv_tegra_release ] || machine=jetson
fi

prefix=$root/opt/edge-medgemma
units=$root/etc/systemd/system
rules=$root/etc/udev/rules.d
settings=$root/etc/edge-medgemma
state=$root/var/lib/edge-medgemma
autostart=$root/etc/xdg/autostart/edge-medgemma.desktop
service=edge-medgemma-clinic.service
extras="cpu,clinic,exchange,pdf"
[ "$machine" = pc ] || extras="$extras,tensorrt"

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

is_real() { [ -z "$root$dry_run" ]; }

check_machine() {
  is_real || return 0
  [ "$(id -u)" = 0 ] || die "run as root: sudo $0"
  command -v systemctl > /dev/null || die "systemd expected; without it run 'edge-medgemma clinic'"
  if [ "$machine" = jetson ]; then
    [ "$(uname -m)" = aarch64 ] || die "this is $(uname -m), expected aarch64"
    local release="" file=/etc/nv_tegra_release
    [ -r $file ] && release=$(sed -n 's/^# R\([0-9]*\).*/\1/p' $file)
    [ -n "$release" ] || die "$file is missing: not a Jetson with Jetson Linux"
    [ "$release" -ge 39 ] || die "Jetson Linux $release found, 39.2 (JetPack 7.2) expected; \
its TensorRT is too old for this model"
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or later expected"
  python3 -c 'import ensurepip' 2> /dev/null \
    || die "Python's venv is missing; install it: apt install python3-venv"
}

check_choices() {
  [ -z "$engine" ] || [ -f "$engine/manifest.json" ] || die "'$engine' is not an engine directory"
  [ -z "$wheels" ] || [ -d "$wheels" ] || die "'$wheels' is not a folder of wheels"
  case $swap_gb in *[!0-9]*) die "--swap '$swap_gb': a whole number of GB expected" ;; esac
  [ -z "$purge" ] || [ -n "$uninstall" ] || die "--purge goes with --uninstall"
}

# Each installation is a folder of its own; `current` names the one that runs.
install_program() {
  version=$prefix/versions/$(date -u +%Y%m%dT%H%M%SZ)
  previous=$(readlink "$prefix/current" || true)
  change mkdir -p "$prefix/versions"
  local venv=(python3 -m venv) pip=("$version/bin/pip" --disable-pip-version-check install -q)
  # TensorRT's Python module is JetPack's own
  [ "$machine" = pc ] || venv+=(--system-site-packages)
  [ -z "$wheels" ] || pip+=(--no-index --find-links "$wheels")
  is_real && trap 'rm -rf "$version"; echo "error: nothing was changed" >&2' EXIT
  system "${venv[@]}" "$version"
  system "${pip[@]}" "${source}[$extras]"
  system "$version/bin/edge-medgemma" clinic --help > /dev/null
  change install -d -m 755 "$version/box"
  change install -m 755 "$here/media.sh" "$here/kiosk.sh" "$source/jetson/power-mode.sh" "$version/box/"
  change install -m 644 "$here"/systemd/*.service "$here"/udev/*.rules "$version/box/"
  [ "$machine" = pc ] || change install -m 644 "$source/jetson/edge-medgemma-power.service" \
    "$source/jetson/gpu.conf" "$version/box/"
  trap - EXIT
}

# Units and rules of the version $1, which becomes the one that runs.
use_version() {
  change install -m 644 "$1"/box/*.service "$units/"
  change install -m 644 "$1"/box/*.rules "$rules/"
  if [ -e "$1/box/gpu.conf" ]; then
    change install -D -m 644 "$1/box/gpu.conf" "$units/$service.d/gpu.conf"
  fi
  change ln -sfn "${1#"$root"}" "$prefix/current.new"
  change mv -T "$prefix/current.new" "$prefix/current" # a rename: never neither
  system systemctl daemon-reload
  system udevadm control --reload
}

add_user() {
  id -u edge-medgemma > /dev/null 2>&1 || system useradd --system --user-group \
    --home-dir /var/lib/edge-medgemma --shell /usr/sbin/nologin edge-medgemma
  [ "$machine" = pc ] || system usermod --append --groups video,render edge-medgemma
}

write_settings() {
  change install -d -m 755 "$units" "$rules" "$settings"
  change install -d -m 755 "$state"
  local file=$settings/clinic.toml
  if [ -e "$file" ]; then
    echo "# $file stays as it is"
  else
    echo "+ write $file"
    [ -n "$dry_run" ] || sed "${engine:+s|^# directory = .*|directory = \"$(readlink -f "$engine")\"|}" \
      "$source/runtime/clinic/settings_example.toml" > "$file"
  fi
  file=$settings/clinic.env
  if [ -e "$file" ] && [ -z "$lan" ]; then
    echo "# $file stays as it is"
  else
    echo "+ write $file"
    [ -n "$dry_run" ] || printf '%s\n' "# Read by $service" \
      "EDGE_MEDGEMMA_CLINIC_OPTIONS=${lan:+--lan}" > "$file"
  fi
  [ -z "$kiosk" ] || change install -D -m 644 "$here/kiosk.desktop" "$autostart"
}

status_text() { systemctl show --property StatusText --value $service; }

# Start the version; where it runs worse than the one before, that one is put back.
start_program() {
  local before=""
  is_real && before=$(status_text)
  use_version "$version"
  system systemctl enable --quiet $service
  if system systemctl restart $service && { ! is_real || [ "$before" != running ] \
    || [ "$(status_text)" = running ]; }; then
    forget_versions
    return
  fi
  if ! is_real || [ -z "$previous" ]; then die "the service does not start: journalctl -u $service"; fi
  echo "error: the new version does not start; the one before is put back" >&2
  use_version "$previous"
  systemctl restart $service
  rm -rf "$version"
  exit 1
}

# All but this version and the one before.
forget_versions() {
  local folder
  for folder in "$prefix"/versions/*; do
    case ${folder#"$root"} in
      "${version#"$root"}" | "$previous" | "$prefix/versions/*") ;;
      *) change rm -rf "$folder" ;;
    esac
  done
}

tune_machine() {
  if [ -n "$swap_gb" ] && [ "$swap_gb" -gt 0 ] && [ ! -e /var/swap-edge-medgemma ]; then
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
  system systemctl disable --quiet --now $service || true
  system systemctl stop 'edge-medgemma-media@*'
  change rm -f "$units/$service" "$units/edge-medgemma-media@.service" \
    "$units/edge-medgemma-mount@.service" "$units/edge-medgemma-power.service" \
    "$rules/90-edge-medgemma-media.rules" "$autostart"
  change rm -rf "$units/$service.d" "$prefix" "$root/var/cache/edge-medgemma"
  system systemctl daemon-reload
  system udevadm control --reload
  if [ -n "$purge" ]; then
    change rm -rf "$state" "$settings"
    ! id -u edge-medgemma > /dev/null 2>&1 || system userdel edge-medgemma
  else
    echo "studies and results in $state and settings in $settings were left; --purge deletes them"
  fi
}

check_machine
check_choices
if [ -n "$uninstall" ]; then
  remove_all
  exit
fi
install_program
add_user
write_settings
tune_machine
start_program
if [ -n "$engine" ] && is_real && ! runuser -u edge-medgemma -- test -r "$engine/manifest.json"; then
  echo "warning: the service cannot read '$engine': chmod -R a+rX '$engine'" >&2
fi
echo "done; where the page is, and its code: journalctl -u $service -o cat"
echo "check the box with: sudo /opt/edge-medgemma/current/bin/edge-medgemma clinic check"
