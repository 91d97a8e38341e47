/**
 * Closes mounts whose device somebody may use.
 *
 * @module
 */
import { TelemapError } from "../mod.ts";

/** How often a device that is in use is looked at again when it is to be taken away. */
const BUSY_POLL_MS = 200;

const WHEN_IN_USE = "unmount what is on it, or send a second signal and lose what is not written";

/** Closes what is mounted there; where somebody uses its device, as soon as nobody does. */
export async function closeOnceFree(path: string, close: () => Promise<void>): Promise<void> {
  for (let told = false;; told = true) {
    try {
      return await close();
    } catch (error) {
      if (!(error instanceof TelemapError && error.code === "EBUSY")) throw error;
      if (!told) console.error(`telemap: ${path} is in use; ${WHEN_IN_USE}`);
    }
    await new Promise((resolve) => setTimeout(resolve, BUSY_POLL_MS));
  }
}
