#!/bin/sh
# A stick or disc that was plugged in, for edge-medgemma-media@.service:
#   media.sh mount NAME     as root: mount /dev/NAME read-only, readable by the service alone
#   media.sh take NAME      as the service: copy its scans into the clinic's box
#   media.sh unmount NAME   as root
set -eu

action=${1:-} name=${2:-}
media=${EDGE_MEDGEMMA_MEDIA:-/run/edge-medgemma/media}
program=${EDGE_MEDGEMMA_PROGRAM:-/opt/edge-medgemma/current/bin/edge-medgemma}
user=${EDGE_MEDGEMMA_USER:-edge-medgemma}

die() { echo "error: $*" >&2; exit 1; }

case $name in
  '' | *[!A-Za-z0-9_-]*) die "usage: media.sh mount|take|unmount NAME (of a device, as sda1)" ;;
esac

# Drivers that are trusted with a stranger's stick, and what makes its files the service's own
# whatever the umask of the caller is. utf8: names of files hold names of people.
mount_options() {
  owner="uid=$(id -u "$user"),gid=$(id -g "$user")"
  case $1 in
    vfat) echo "$owner,fmask=0377,dmask=0277,utf8=1" ;;
    exfat | ntfs3) echo "$owner,fmask=0377,dmask=0277,iocharset=utf8" ;;
    iso9660 | udf) echo "$owner,mode=0400,dmode=0500,iocharset=utf8" ;;
    ext4) echo "noload" ;; # without it a read-only mount replays the journal, and writes
    *) return 1 ;;
  esac
}

mount_medium() {
  type=$(blkid -p -o value -s TYPE "/dev/$name") || die "no file system found on /dev/$name"
  [ "$type" != ntfs ] || type=ntfs3
  options=$(mount_options "$type") \
    || die "the file system '$type' is not read; use FAT, exFAT, NTFS, ext4, or a data CD or DVD"
  # Modes are said: under the service's umask a plain mkdir shuts the service out.
  install -d -m 755 "${media%/*}" "$media"
  install -d -m 700 -o "$user" "$media/$name"
  [ -e "$media/lock" ] || install -m 644 /dev/null "$media/lock"
  mount -t "$type" -o "ro,nosuid,nodev,noexec,$options" "/dev/$name" "$media/$name"
}

case $action in
  mount) mount_medium ;;
  take)
    exec 9< "$media/lock"
    flock 9 # several sticks: one after the other
    exec "$program" clinic add "$media/$name"
    ;;
  unmount)
    umount --lazy "$media/$name"
    rmdir "$media/$name"
    ;;
  *) die "usage: media.sh mount|take|unmount NAME" ;;
esac
