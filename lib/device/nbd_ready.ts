/**
 * When an NBD device that was asked for can be opened: it has its size then. Asking for that is
 * quicker than to wait for the kernel's announcement, which the other way does.
 *
 * @module
 */
import type { UeventSocket } from "../../ffi/netlink_socket.ts";
import { DeadlineError, TelemapError } from "../backend/errors.ts";
import type { NbdControl } from "./nbd_control.ts";
import { readAttribute } from "./sysfs.ts";

/** What tells that a device is ready: its size in sysfs, or the kernel's uevent. */
export type ReadySignal = "sysfs" | "uevent";

const SECTOR = 512;
const READY_MS = 10_000;
/** Looks at once, a few microseconds each, before it sleeps between looks. */
const EAGER_LOOKS = 32;
const SLEEP_MS_MAX = 20;

/**
 * Waits until a device has its size: by looking, or by the kernel's `events`, which must have been
 * listened to since before it was asked for.
 *
 * @throws {DeadlineError} where it does not get there in 10 s.
 * @throws {TelemapError} where the kernel ends the device instead.
 */
export async function untilReady(
  control: NbdControl,
  size: number,
  events: UeventSocket | undefined,
): Promise<void> {
  const deadline = performance.now() + READY_MS;
  const isReady = () => readAttribute(`/sys/block/nbd${control.index}/size`) === `${size / SECTOR}`;
  const readying = events === undefined
    ? look(isReady, deadline)
    : listen(events, control.index, isReady, deadline);
  const ready = await Promise.race([readying, control.ended]);
  if (ready === true) return;
  const path = `/dev/nbd${control.index}`;
  if (ready === false) throw new DeadlineError(`Cannot see ${path} become ready in 10 s`);
  throw new TelemapError("EIO", `Cannot attach ${path}: the kernel ended it at once`, {
    hint: "its log says why (dmesg)",
  });
}

async function look(isReady: () => boolean, deadline: number): Promise<boolean> {
  for (let looks = 0, sleep = 1;; looks++) {
    if (isReady()) return true;
    if (looks < EAGER_LOOKS) continue;
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, sleep));
    sleep = Math.min(sleep * 2, SLEEP_MS_MAX);
  }
}

async function listen(
  events: UeventSocket,
  index: number,
  isReady: () => boolean,
  deadline: number,
): Promise<boolean> {
  const path = `/devices/virtual/block/nbd${index}`;
  // An earlier change of the same device may still be announced: only with the size does it count.
  const event = await events.next(
    (event) => event.action === "change" && event.path === path && isReady(),
    deadline,
  );
  return event !== undefined;
}
