/**
 * A small process that outlives this one and unmounts what it leaves behind.
 *
 * A process that dies while a file that it serves itself is mapped, with dirty pages, cannot die: the
 * kernel writes those pages back first, to a server whose threads are gone already, and closes
 * `/dev/fuse`, which would end the wait, only afterwards. Not even SIGKILL ends such a process. Breaking
 * the connection from outside does.
 *
 * @module
 */
import { processId, processStart } from "../../ffi/process.ts";

/**
 * Once a second it looks whether process $1, which began at $2, still lives: it does not where its entry
 * in /proc is gone or another process's, a zombie's, has PF_EXITING (4) among its flags, or SIGKILL (256)
 * among the signals that wait for it, as for a thread that the kernel lets touch a page in vain. Then it
 * breaks the mount $3 and lets go of loop devices over it.
 */
const SCRIPT = `
pid=$1 start=$2 mount=$3
while sleep 1; do
  read -r line < /proc/$pid/stat || break
  set -- \${line##*) }
  [ "$1" != Z ] && [ $(($7 & 4)) -eq 0 ] && [ "\${20}" = "$start" ] || break
  while read -r key value; do
    case $key in
      SigPnd: | ShdPnd:) [ $((0x$value & 256)) -eq 0 ] || break 2 ;;
    esac
  done < /proc/$pid/status
done
loops=
for file in /sys/block/loop*/loop/backing_file; do
  read -r backing < "$file" || continue
  device=\${file#/sys/block/}
  case $backing in "$mount"/*) loops="$loops /dev/\${device%%/*}" ;; esac
done
umount -f -l "$mount" || fusermount3 -u -z "$mount"
for device in $loops; do losetup -d "$device"; done
case $mount in */telemap-*) rmdir "$mount" ;; esac
`;

/** A watchdog over one mount. */
export interface Watchdog {
  /** Ends it, once the mount is gone. */
  dismiss(): Promise<void>;
}

/**
 * Starts a watchdog over a mount of this process; undefined where there is no shell, or running one
 * is not permitted.
 */
export function watchMount(mountPoint: string): Watchdog | undefined {
  const pid = processId();
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("sh", {
      args: ["-c", SCRIPT, "telemap-watchdog", `${pid}`, `${processStart(pid)}`, mountPoint],
      cwd: "/",
      // A session of its own: what a terminal or timeout(1) sends reaches whole process groups.
      detached: true,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  } catch {
    return undefined;
  }
  child.unref();
  return {
    dismiss: async () => {
      child.ref();
      try {
        child.kill("SIGKILL");
      } catch {
        // It ended: somebody killed it, or unmounted and let it do its work.
      }
      await child.status;
    },
  };
}
