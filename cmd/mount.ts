/**
 * `telemap mount`: makes a region appear on this host until it is stopped.
 *
 * @module
 */
import { parseDuration } from "../lib/backend/duration.ts";
import { CacheProgressTeller } from "./cache_progress.ts";
import {
  type Durability,
  formatSize,
  type Mount,
  mountDirect,
  mountManaged,
  TelemapError,
  UsageError,
} from "../mod.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken, TOKEN_OPTION } from "./token.ts";

/** How often a device that is in use is looked at again when it is to be taken away. */
const BUSY_POLL_MS = 200;

const WHEN_IN_USE = "unmount what is on it, or send a second signal and lose what is not written";

/** See the module. */
export const mount: Command = defineCommand({
  name: "mount",
  summary: "Mount a region on this host",
  description: "The region appears as a block device (nbd, loop) or as a file (fuse), until " +
    "SIGINT or SIGTERM. Then it is flushed and taken away, once nobody uses it; a second signal " +
    "ends at once. auto takes the best device that is there; see telemap doctor.\n" +
    "A managed mount keeps what was read and written in a cache, fills that in the background " +
    "and pushes what was written. A cache that was used before goes on where it was.\n" +
    "With --json it prints one line for each event, first\n" +
    '{"event":"ready","device":"loop","path":"/dev/loop3","size":268435456}',
  operands: [{ name: "BACKEND", help: "URL of the region", value: "url" }],
  options: {
    device: {
      help: "what it appears as",
      value: ["auto", "nbd", "fuse", "loop"],
      default: "auto",
    },
    at: { help: "directory where the fuse file appears", value: "path", label: "PATH" },
    "read-only": { help: "refuse writes" },
    managed: { help: "keep what was read and written in --cache, and push it later" },
    cache: {
      help: "the cache: file:/path or dir:/path; made where it is not there",
      value: "url",
      label: "URL",
    },
    chunk: {
      help: "bytes that are fetched at a time",
      value: "size",
      label: "SIZE",
      default: "64KiB",
    },
    "pull-workers": {
      help: "requests that fill the cache at a time; 0 for none",
      value: "text",
      label: "N",
    },
    "pull-first": { help: "fill the cache before anything appears" },
    "push-workers": {
      help: "requests that push at a time; as measured unless given",
      value: "count",
      label: "N",
    },
    "push-interval": {
      help: "how often writes go to the remote; 0 for at the end",
      value: "text",
      label: "TIME",
      default: "20s",
    },
    durability: {
      help: "where a flush makes durable what was written",
      value: ["local", "remote"],
      default: "local",
    },
    "discard-cache": { help: "give up what the cache holds, also what was not pushed" },
    "token-file": TOKEN_OPTION,
    json: JSON_OPTION,
  },
  examples: [
    {
      call: "telemap mount telemap://127.0.0.1:4100",
      does: "as the best device that this host has",
    },
    {
      call: "telemap mount 'nbd+unix:///?socket=/tmp/region.sock' --device fuse --at /mnt/region",
      does: "an export of any NBD server, as a file in /mnt/region",
    },
    {
      call: "telemap mount telemap://server:4100 --managed --cache file:/var/cache/region",
      does: "one that is far away, at the speed of the cache",
    },
  ],
  async run([backend], options) {
    using stop = new StopSignals();
    const token = await readToken(options["token-file"]);
    const place = {
      as: "path" as const,
      device: options.device,
      readOnly: options["read-only"],
      ...(options.at !== undefined && { at: options.at }),
      ...(token !== undefined && { token }),
    };
    const managed = options.managed || options.cache !== undefined
      ? await mountManaged({
        ...place,
        remote: backend!,
        local: cacheOf(options),
        ...cached(options),
      })
      : undefined;
    const mounted = managed ?? await mountDirect({ ...place, backend: backend! });
    let lost: Error | undefined;
    try {
      console.log(options.json ? JSON.stringify(readyEvent(mounted)) : readyLine(mounted));
      using _teller = managed && new CacheProgressTeller(managed, options);
      lost = await Promise.race([mounted.closed, stop.received.then(() => undefined)]);
    } finally {
      // What took the device away is the error to tell of; that it cannot be flushed follows.
      await closeOnceFree(mounted).catch((error) => lost ??= error);
    }
    if (lost !== undefined) throw lost;
    if (options.json) console.log(JSON.stringify({ event: "closed" }));
  },
});

/** The URL of the cache. Throws where only one of both options was given. */
function cacheOf({ managed, cache }: { managed: boolean; cache: string | undefined }): string {
  if (managed && cache !== undefined) return cache;
  const missing = managed ? "--cache" : "--managed";
  throw new UsageError(`Cannot mount behind a cache without ${missing}`, {
    hint: "give both: --managed --cache file:/path",
  });
}

/** How the cache works, as the options say. */
function cached(options: {
  chunk: number;
  "pull-first": boolean;
  "pull-workers": string | undefined;
  "push-workers": number | undefined;
  "push-interval": string;
  durability: Durability;
  "discard-cache": boolean;
}) {
  return {
    chunkSize: options.chunk,
    pullFirst: options["pull-first"],
    ...pullWorkersOf(options["pull-workers"]),
    pushWorkers: options["push-workers"],
    pushInterval: parseDuration(options["push-interval"]),
    durability: options.durability,
    discardCache: options["discard-cache"],
  };
}

/** A count that may be 0. */
function pullWorkersOf(text: string | undefined): { pullWorkers?: number } {
  if (text === undefined) return {};
  if (/^[0-9]{1,5}$/.test(text)) return { pullWorkers: Number(text) };
  throw new UsageError(`Cannot pull by ${JSON.stringify(text)} requests`, {
    hint: "--pull-workers takes a whole number, 0 or more",
  });
}

/** Closes a mount; where somebody uses its device, as soon as nobody does. */
async function closeOnceFree(mount: Mount): Promise<void> {
  for (let told = false;; told = true) {
    try {
      return await mount.close();
    } catch (error) {
      if (!(error instanceof TelemapError && error.code === "EBUSY")) throw error;
      if (!told) console.error(`telemap: ${mount.path} is in use; ${WHEN_IN_USE}`);
    }
    await new Promise((resolve) => setTimeout(resolve, BUSY_POLL_MS));
  }
}

function readyEvent({ device, path, size, durable, readOnly, reason }: Mount) {
  return { event: "ready", device, path, size, durable, readOnly, reason };
}

function readyLine({ device, path, size, durable, reason }: Mount): string {
  const line = `Mounted ${formatSize(size)} at ${path} by ${device}: ${reason}`;
  return durable ? line : `${line}\nThe store behind it does not survive a loss of power`;
}
