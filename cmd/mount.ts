/**
 * `telemap mount`: makes a region appear on this host until it is stopped.
 *
 * @module
 */
import { formatSize, type Mount, mountDirect, mountManaged, type ProfileCounts } from "../mod.ts";
import { CACHE_OPTIONS, readCacheOptions } from "./cache_options.ts";
import { profileLine, tellCache } from "./cache_progress.ts";
import { closeOnceFree } from "./close_mount.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken, TOKEN_OPTION } from "./token.ts";

/** See the module. */
export const mount: Command = defineCommand({
  name: "mount",
  summary: "Mount a region on this host",
  description: "The region appears as a block device (nbd, loop) or as a file (fuse), until " +
    "SIGINT or SIGTERM. Then it is flushed and taken away, once nobody uses it; a second signal " +
    "ends at once. auto takes the best device that is there; see telemap doctor.\n" +
    "A managed mount keeps what was read and written in a cache, fills that in the background " +
    "and pushes what was written. A cache that was used before goes on where it was.\n" +
    "A profile is a file that tells in which order the region was read for the first time. What " +
    "it tells of is fetched first, and in the end it is written anew.\n" +
    "With --json it prints one line for each event: ready, progress, profile and closed; first\n" +
    '{"event":"ready","device":"loop","path":"/dev/loop3","size":268435456,…}',
  operands: [{ name: "BACKEND", help: "URL of the region", value: "url" }],
  options: {
    device: {
      help: "what it appears as",
      value: ["auto", "nbd", "fuse", "loop"],
      default: "auto",
    },
    at: {
      help: "directory of the fuse file, or of the one under loop",
      value: "path",
      label: "PATH",
    },
    "read-only": { help: "refuse writes" },
    ...CACHE_OPTIONS,
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
    {
      call: "telemap mount telemap://server:4100 --managed --cache file:/tmp/new --profile boot",
      does: "the same anew; what is read first this time is there first the next time",
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
    const cache = readCacheOptions(options);
    let profile: ProfileCounts | undefined;
    const onBeforeClose = async () => {
      profile = (await managed?.progress().catch(() => undefined))?.profile;
    };
    const managed = cache &&
      await mountManaged({ ...place, remote: backend!, ...cache, hooks: { onBeforeClose } });
    const mounted = managed ?? await mountDirect({ ...place, backend: backend! });
    let lost: Error | undefined;
    try {
      console.log(options.json ? JSON.stringify(readyEvent(mounted)) : readyLine(mounted));
      using _teller = managed && tellCache(managed, options);
      lost = await Promise.race([mounted.closed, stop.received.then(() => undefined)]);
    } finally {
      // What took the device away is the error to tell of; that it cannot be flushed follows.
      await closeOnceFree(mounted.path, () => mounted.close()).catch((error) => lost ??= error);
    }
    if (lost !== undefined) throw lost;
    if (profile !== undefined) {
      console.log(
        options.json ? JSON.stringify({ event: "profile", ...profile }) : profileLine(profile),
      );
    }
    if (options.json) console.log(JSON.stringify({ event: "closed" }));
  },
});

function readyEvent({ device, path, size, durable, readOnly, reason }: Mount) {
  return { event: "ready", device, path, size, durable, readOnly, reason };
}

function readyLine({ device, path, size, durable, reason }: Mount): string {
  const line = `Mounted ${formatSize(size)} at ${path} by ${device}: ${reason}`;
  return durable ? line : `${line}\nThe store behind it does not survive a loss of power`;
}
