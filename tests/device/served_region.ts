/**
 * A region that one process serves and another mounts, both the real command line, and a file
 * system on it, for device tests.
 *
 * @module
 */
import type { DeviceChoice } from "../../mod.ts";
import { type Event, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory } from "./command.ts";

/** Starts `telemap serve`; answers where it listens: at `listen`, at a free port unless told. */
export async function startServer(
  backend: string,
  listen = "telemap://127.0.0.1:0",
): Promise<{ process: TelemapProcess; url: string }> {
  const process = new TelemapProcess(["serve", backend, "--listen", listen, "--json"]);
  const { url } = await orKill(process);
  return { process, url: `${url}` };
}

/** Starts `telemap mount`; answers the path at which the region is. */
export async function startMount(
  backend: string,
  device: DeviceChoice,
  env?: Record<string, string>,
): Promise<{ process: TelemapProcess; path: string }> {
  const process = new TelemapProcess(["mount", backend, "--device", device, "--json"], env);
  const { path } = await orKill(process);
  return { process, path: `${path}` };
}

/** Starts `telemap mount --managed` with that cache; answers the path at which the region is. */
export async function startManagedMount(
  remote: string,
  cache: string,
  device: DeviceChoice,
  more: string[] = [],
): Promise<{ process: TelemapProcess; path: string }> {
  const args = ["mount", remote, "--managed", "--cache", cache, "--device", device, "--json"];
  const process = new TelemapProcess([...args, ...more]);
  const { path } = await orKill(process);
  return { process, path: `${path}` };
}

async function orKill(process: TelemapProcess): Promise<Event> {
  try {
    return await process.next();
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
}

/** A file system that is mounted on a directory of its own until this is disposed of. */
export class MountedFileSystem implements AsyncDisposable {
  /** The directory. */
  readonly path: string;
  readonly #directory: Disposable;
  #isMounted = false;

  /** Mounts what is on a block device, or in a file. */
  static async mount(source: string, options = "defaults"): Promise<MountedFileSystem> {
    const mounted = new MountedFileSystem();
    try {
      await shell(`mount -o ${options} ${source} ${mounted.path}`);
      mounted.#isMounted = true;
      return mounted;
    } catch (error) {
      mounted.#directory[Symbol.dispose]();
      throw error;
    }
  }

  private constructor() {
    const directory = temporaryDirectory();
    this.path = directory.path;
    this.#directory = directory;
  }

  /** Unmounts; throws where it is in use. */
  async unmount(): Promise<void> {
    await shell(`umount ${this.path}`);
    this.#isMounted = false;
  }

  /** Unmounts where that is still to be done, as soon as nobody uses it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isMounted) await shell(`umount --lazy ${this.path}`);
    this.#directory[Symbol.dispose]();
  }
}
