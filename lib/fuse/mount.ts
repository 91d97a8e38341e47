/**
 * Mounts a FUSE file system: by mount(2), or for users without that privilege by fusermount3(1).
 *
 * @module
 */
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import {
  MNT,
  mountFuse,
  MS_FLAG,
  openFuse,
  unmount as unmount2,
  unmountHere,
} from "../../ffi/fuse.ts";
import { close, makeInheritable, O, open, pwrite, setNonblocking } from "../../ffi/file.ts";
import { socketpair } from "../../ffi/socket.ts";
import { receiveDescriptors } from "../../ffi/socket_message.ts";
import { TelemapError } from "../backend/errors.ts";
import { readMountTable } from "./mount_table.ts";
import { MAX_TRANSFER } from "./request.ts";

/** What the type of our mounts is called after `fuse.`. */
export const SUBTYPE = "telemap";

/** How {@linkcode mount} mounts. */
export interface MountOptions {
  /** The directory that becomes its root. */
  mountPoint: string;
  /** What mount tables show as the device. */
  source: string;
  /** Refuse whatever changes it. */
  readOnly: boolean;
  /** Let others in than who mounts, as far as the permissions of file and directory do. */
  allowOther: boolean;
}

/**
 * Mounts, and answers the nonblocking `/dev/fuse` descriptor on which the file system is to be
 * served. Until it is, whoever looks into the mount waits.
 *
 * @throws {SystemError} ENOENT and ENODEV: no FUSE here; EACCES: `/dev/fuse` refuses this user;
 * EPERM: not permitted, and there is no fusermount3.
 * @throws {TelemapError} fusermount3 failed; its own words are in the message.
 */
export async function mount(options: MountOptions): Promise<number> {
  try {
    return mountDirectly(options);
  } catch (error) {
    // Only mount(2) fails with EPERM. Whom /dev/fuse refuses (EACCES), the helper refuses as well.
    if (!(error instanceof SystemError && error.errno === ERRNO.EPERM)) throw error;
    return await mountByHelper(options, error);
  }
}

/**
 * Unmounts; answers whether it is gone. `force` breaks the connection to the server, so that nobody
 * waits for it any more, and takes the mount away from under those who still use it.
 */
export async function unmount(mountPoint: string, { force = false } = {}): Promise<boolean> {
  if (await unmount2(mountPoint, force ? MNT.FORCE | MNT.DETACH : 0)) return true;
  const device = deviceAt(mountPoint);
  if (device === undefined) return true;
  if (force) abortConnection(device);
  const options = force ? ["-u", "-z", "-q"] : ["-u", "-q"];
  const { success } = await runHelper([...options, "--", mountPoint]) ?? { success: false };
  return success;
}

/**
 * The forced form of {@linkcode unmount} for an isolate that is about to end: what can be done
 * without waiting is done.
 */
export function unmountAtExit(mountPoint: string): void {
  const device = deviceAt(mountPoint);
  if (device === undefined || unmountHere(mountPoint, MNT.FORCE | MNT.DETACH) === 0) return;
  abortConnection(device);
}

/**
 * Breaks the connection of a file system (by its device number) to its server: whoever waits for it
 * gets ECONNABORTED. Answers false where fusectl is not mounted or the file system is not ours.
 */
export function abortConnection(device: string): boolean {
  const [, minor] = device.split(":");
  try {
    const fd = open(`/sys/fs/fuse/connections/${minor}/abort`, O.WRONLY);
    const written = pwrite(fd, new Uint8Array([0x31]), 0);
    close(fd);
    return written === 1;
  } catch {
    return false;
  }
}

/** Whether one of our file systems is mounted there. */
export function isMounted(mountPoint: string): boolean {
  return deviceAt(mountPoint) !== undefined;
}

/** The device number (`MAJOR:MINOR`) of our file system at a mount point. */
export function deviceAt(mountPoint: string): string | undefined {
  return readMountTable().findLast((entry) =>
    entry.mountPoint === mountPoint && entry.type === `fuse.${SUBTYPE}`
  )?.device;
}

/** Options of fuse(8) that both ways of mounting take. */
function commonOptions({ allowOther }: MountOptions): string {
  return `default_permissions,max_read=${MAX_TRANSFER}${allowOther ? ",allow_other" : ""}`;
}

function mountDirectly(options: MountOptions): number {
  const fd = openFuse();
  try {
    mountFuse({
      fd,
      mountPoint: options.mountPoint,
      source: options.source,
      subtype: SUBTYPE,
      flags: MS_FLAG.NOSUID | MS_FLAG.NODEV | (options.readOnly ? MS_FLAG.RDONLY : 0),
      uid: Deno.uid() ?? 0,
      gid: Deno.gid() ?? 0,
      more: `,${commonOptions(options)}`,
    });
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

async function mountByHelper(options: MountOptions, refusal: unknown): Promise<number> {
  const [ours, theirs] = socketpair();
  try {
    const list = `fsname=${options.source},subtype=${SUBTYPE},${commonOptions(options)}` +
      (options.readOnly ? ",ro" : "");
    makeInheritable(theirs);
    const helper = runHelper(["-o", list, "--", options.mountPoint], { _FUSE_COMMFD: `${theirs}` });
    close(theirs);
    const ended = await helper;
    if (ended === undefined) throw refusal;
    if (!ended.success) throw helperError(ended.stderr, options.mountPoint, refusal);
    const [fd] = receiveDescriptors(ours, new Uint8Array(128), 1).descriptors;
    if (fd === undefined) throw helperError("it sent no descriptor", options.mountPoint, refusal);
    setNonblocking(fd);
    return fd;
  } finally {
    close(ours);
  }
}

function helperError(words: string, mountPoint: string, cause: unknown): TelemapError {
  return new TelemapError("EPERM", `Cannot mount ${mountPoint} by fusermount3: ${words.trim()}`, {
    cause,
    hint: "run as root, or see that fusermount3 is setuid root and the directory is yours",
  });
}

/** Runs fusermount3, or its older name; undefined where neither is installed. */
function runHelper(
  args: string[],
  env: Record<string, string> = {},
): Promise<{ success: boolean; stderr: string } | undefined> {
  for (const name of ["fusermount3", "fusermount"]) {
    try {
      // A working directory that this user may not see would stop any program from starting.
      const io = { stdin: "null", stdout: "null", stderr: "piped" } as const;
      const options = { args, env, cwd: "/", ...io };
      return new Deno.Command(name, options).spawn().output().then(({ success, stderr }) => ({
        success,
        stderr: new TextDecoder().decode(stderr),
      }));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return Promise.resolve(undefined);
}
