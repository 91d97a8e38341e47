/**
 * Whether the kernel reads the replies on every connection of an NBD device.
 *
 * It reads each by a work item of its own, which ends with the connection. Where the kernel is too
 * slow in making threads for them, when memory or processors are short, its rescuer thread takes all
 * that wait and performs them one after another (kernel/workqueue.c, rescuer_thread): the second
 * connection would be read when the first has ended. So its requests hang, until their timeout.
 *
 * @module
 */
import { readAttribute } from "./sysfs.ts";

const KTHREADD = "/proc/2";
/** The kernel calls its rescuer after 10 ms, so what does not run by then was left to that. */
const START_MS = 100;
const POLL_MS = 2;

/**
 * Waits until `connections` receivers of /dev/nbdN run; false where some do not within 100 ms. True
 * where this cannot be seen: in a pid namespace of its own.
 */
export async function receiversStart(index: number, connections: number): Promise<boolean> {
  const deadline = performance.now() + START_MS;
  while (true) {
    const running = countReceivers(index, connections);
    if (running === undefined || running === connections) return true;
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Kernel threads at work on a device's replies, `limit` at most; undefined where none are seen. */
function countReceivers(index: number, limit: number): number | undefined {
  if (readAttribute(`${KTHREADD}/comm`) !== "kthreadd") return undefined;
  const threads = readAttribute(`${KTHREADD}/task/2/children`);
  if (threads === undefined) return undefined;
  // A thread shows its work behind its name: kworker/u5:1+nbd0-recv.
  const work = `+nbd${index}-recv`;
  let running = 0;
  for (const thread of threads.split(" ").reverse()) {
    if (readAttribute(`/proc/${thread}/comm`)?.endsWith(work)) running++;
    if (running === limit) break;
  }
  return running;
}
