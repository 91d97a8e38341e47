/**
 * `telemap demo`: serves a region in one process, mounts it in another, and shows that what is
 * written to it arrives, and how fast.
 *
 * @module
 */
import {
  type Backend,
  type DeviceChoice,
  formatSize,
  IntegrityError,
  type Mount,
  mountDirect,
  openBackend,
  UnsupportedError,
  UsageError,
} from "../mod.ts";
import { fileUrl } from "../lib/backend/file_url.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { type Speed, speedTable, timeRandomReads, timeReading, timeWriting } from "./demo_speed.ts";
import { startServer } from "./demo_server.ts";

/** The least that the measurements need, in bytes. */
const SMALLEST = 16 * 1024 * 1024;

/** See the module. */
export const demo: Command = defineCommand({
  name: "demo",
  summary: "Serve a region, mount it here, write to it and verify it",
  description:
    "One process serves a region in memory at a free port of 127.0.0.1; this one mounts " +
    "it by the best device of this host, writes, mounts again, reads, and compares checksums. " +
    "Without any device it goes through the client in user space alone. Nothing is left behind.",
  operands: [],
  options: {
    size: { help: "bytes of the region", value: "size", label: "SIZE", default: "256MiB" },
    device: {
      help: "what to mount it as",
      value: ["auto", "nbd", "fuse", "loop"],
      default: "auto",
    },
    json: JSON_OPTION,
  },
  examples: [{ call: "telemap demo --size 1GiB", does: "with a larger region" }],
  async run(_operands, { size, device, json }) {
    if (size < SMALLEST || size % (1 << 20) !== 0) {
      throw new UsageError("--size is a multiple of 1MiB from 16MiB");
    }
    const say = json ? () => {} : (line: string) => console.log(line);
    await using server = await startServer(`memory:${size}`);
    say(`Serving ${formatSize(size)} of memory at ${server.url}, by process ${server.pid}`);
    const speeds: Speed[] = [];
    const mounted = await runMounted(server.url, device, say);
    if (mounted !== undefined) speeds.push(mounted);
    speeds.push(await runClient(server.url, mounted?.checksum, say));
    if (json) console.log(JSON.stringify({ event: "done", url: server.url, size, speeds }));
    else console.log(`\n${speedTable(speeds)}`);
  },
});

type Say = (line: string) => void;

/** Writes, mounts anew so that nothing is cached, reads. Undefined where there is no device. */
async function runMounted(
  url: string,
  device: DeviceChoice,
  say: Say,
): Promise<Speed | undefined> {
  const first = await mountOrSay(url, device, say);
  if (first === undefined) return undefined;
  const written = await throughMount(first, timeWriting);
  const mount = await mountDirect({ backend: url, device: first.device, as: "path" });
  const { latency, read } = await throughMount(mount, async (region) => {
    const latency = await timeRandomReads(region);
    return { latency, read: await timeReading(region) };
  });
  checkSame(written.checksum, read.checksum);
  const size = formatSize(mount.size);
  say(`Wrote ${size}, unmounted, mounted again and read it: equal, SHA-256 ${read.checksum}`);
  const way = `mounted by ${mount.device}`;
  return { way, write: written.speed, read: read.speed, ...latency, checksum: read.checksum };
}

async function mountOrSay(
  url: string,
  device: DeviceChoice,
  say: Say,
): Promise<Mount | undefined> {
  try {
    const mount = await mountDirect({ backend: url, device, as: "path" });
    say(`Mounted at ${mount.path} by ${mount.device}: ${mount.reason}`);
    return mount;
  } catch (error) {
    if (device !== "auto" || !(error instanceof UnsupportedError)) throw error;
    say(`No device can be had here: ${error.message}`);
    say("So only the client in user space is shown");
    return undefined;
  }
}

/** Does something with the region through its path, and unmounts it. */
async function throughMount<T>(
  mount: Mount,
  use: (region: Backend) => Promise<T>,
): Promise<T> {
  await using _mount = mount;
  await using region = await openBackend(fileUrl(mount));
  return await use(region);
}

/** Reads what came through the device, then writes and reads without any. */
async function runClient(url: string, expected: string | undefined, say: Say): Promise<Speed> {
  await using region = await openBackend(url);
  if (expected !== undefined) {
    checkSame(expected, (await timeReading(region)).checksum);
    say("The server holds the same: read without the device");
  }
  const written = await timeWriting(region);
  const latency = await timeRandomReads(region);
  const read = await timeReading(region);
  checkSame(written.checksum, read.checksum);
  return {
    way: "client in user space",
    write: written.speed,
    read: read.speed,
    ...latency,
    checksum: read.checksum,
  };
}

function checkSame(expected: string, found: string): void {
  if (expected === found) return;
  throw new IntegrityError(`What was read is not what was written: ${found}, not ${expected}`);
}
