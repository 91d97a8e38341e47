#!/bin/busybox sh
# The first process of the virtual machine: inserts the modules, puts a writable layer over the
# host's files, runs /command in them with its output on the second serial line, and powers off.

finish() {
  busybox printf '\n%s %d\n' "$MARKER" "$1" >/dev/ttyS1
  busybox sync
  busybox poweroff -f
}

die() {
  echo "init: cannot $1"
  finish 125
}

busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox stty -F /dev/ttyS1 raw

while read -r name parameters; do
  busybox insmod "/modules/$name.ko" $parameters || die "insert $name"
done </modules/order

busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /lower ||
  die "mount the host's files"
busybox mount -t tmpfs writable /writable
busybox mkdir /writable/upper /writable/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/writable/upper,workdir=/writable/work \
  overlay /overlay || die "put a writable layer over the host's files"

busybox mount -t proc proc /overlay/proc
busybox mount -t sysfs sys /overlay/sys
busybox mount -t devtmpfs dev /overlay/dev
busybox mkdir -p /overlay/dev/pts /overlay/dev/shm
busybox mount -t devpts devpts /overlay/dev/pts
busybox mount -t tmpfs shm /overlay/dev/shm
busybox mount -t tmpfs run /overlay/run
busybox ip link set lo up

busybox cp /command /overlay/run/command
busybox chroot /overlay /bin/sh /run/command >/dev/ttyS1 2>&1 </dev/null
finish $?
