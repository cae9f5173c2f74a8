#!/bin/bash
# Runs a command as a container engine would, as far as the command can tell: the first process of a PID namespace, with a
# network, a /dev, a /proc and a read-only root of its own, an unprivileged user, no capability, and no new privileges.
#
#   unshare --mount --net --pid --ipc --uts --fork --kill-child container.sh STATE USER COMMAND...
#
# STATE is a folder with config/ (/etc/relayd) and environment/ (/opt/relayd). CONTAINER_NEEDS names folders that the
# interpreter is in, CONTAINER_CWD where to start; the rest of the environment is COMMAND's.
set -euo pipefail
state=$1 user=$2
shift 2
layers=$state/layers root=$state/layers/root
mount -t tmpfs -o mode=755 tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$root"
for path in $CONTAINER_NEEDS; do
  # Another user has to get there, whatever home it is in. In the overlay alone: it is not the machine's that changes.
  parent=$path
  while [ "$parent" != / ]; do
    parent=$(dirname "$parent")
    mkdir -p "$root$parent"
    chmod a+rx "$root$parent"
  done
  mkdir -p "$root$path"
  mount --bind "$path" "$root$path"
  mount -o remount,bind,ro "$root$path"
done
mkdir -p "$root/etc/relayd" "$root/opt/relayd" "$root/run/relayd"
mount --bind "$state/config" "$root/etc/relayd"
mount --bind "$state/environment" "$root/opt/relayd"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
  read -r name minor <<<"$node"
  mknod -m 666 "$root/dev/$name" c 1 "$minor"
done
mount -o remount,bind,ro "$root"
mount -o remount,bind,ro "$root/etc/relayd"
mount -o remount,bind,ro "$root/opt/relayd"
# An emptyDir; of the image's own /run/relayd, only the owner may write.
mount -t tmpfs -o mode=755,uid="${user%:*}",gid="${user#*:}",size=1m tmpfs "$root/run/relayd"
ip link set lo up
# The standard ones are all that it inherits.
exec env -u CONTAINER_NEEDS -u CONTAINER_CWD chroot "$root" /usr/bin/setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
  --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
