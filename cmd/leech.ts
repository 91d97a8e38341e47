/**
 * `telemap leech`: brings a region here that is in use on another host, and takes it over.
 *
 * @module
 */
import { parseDuration } from "../lib/backend/duration.ts";
import { pauseFor } from "../lib/chunk/pause.ts";
import {
  formatSize,
  Leecher,
  leechGroup,
  type Leeching,
  type MigrationMetrics,
  type Missing,
  type Mount,
  UsageError,
} from "../mod.ts";
import { parsePullRate } from "./cache_options.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { CHAIN_OPTIONS, chainOf, NextSeeder } from "./chain.ts";
import { closeOnceFree } from "./close_mount.ts";
import { tellMigration } from "./migration_progress.ts";
import { firstGone, type Mounted, mountFields, mountWords, oneMount, pathsOf } from "./mounted.ts";
import { Promotions, standBy } from "./standby.ts";
import { ProgramCommands } from "./shell.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken } from "./token.ts";

/** Between tries to be done with the source. */
const RETRY_MS = { FIRST: 1000, MOST: 60_000 } as const;

/** See the module. */
export const leech: Command = defineCommand({
  name: "leech",
  summary: "Take over a region that is in use on another host",
  description: "It copies the region of a telemap seed while that is in use, then what was " +
    "written meanwhile, until that is so little that the last of it fits in --max-downtime, and " +
    "going on would not make it much less; then the program there is suspended, and the region " +
    "appears here. Where it is written faster than it can be copied, --strategy decides: wait " +
    "tries on until --max-time, cancel gives up once rounds get no smaller, throttle slows what is " +
    "written there by the device, ever more, until --max-time; force takes the region over then, " +
    "at --max-time at the latest, and fetches what is missing on demand. Where it gives up, the " +
    "program goes on there.\n" +
    "The source commits once all that was written is here: where the link is cut before, the " +
    "program goes on there. With --confirm ahead it commits before, which takes a round trip less, " +
    "but where the link is cut in that moment the program stands still until it is back; auto does " +
    "so where --max-downtime cannot be met otherwise.\n" +
    "With --follow it stays a warm standby, which keeps up with its source until telemap migrate " +
    "promote has it take over.\n" +
    "With --listen others may take the region over in turn, once all of it is here, while it stays " +
    "in use on the same device; --suspend and --resume are run as by telemap seed.\n" +
    "It stays mounted until SIGINT or SIGTERM, or until another host has everything. A terminal shows how far it is; with --json it " +
    "prints one line for each event: " +
    "progress, lag, ready, unsettled, complete, seeding, stage and closed.",
  operands: [{
    name: "URL",
    help: "address of the seeder; with --accept, of this side",
    value: "url",
  }],
  options: {
    group: { help: "take over the parts of a group, each as a device" },
    accept: { help: "listen at URL, and wait for the seeder to dial" },
    ...CHAIN_OPTIONS,
    insecure: { help: "listen beyond this host although anyone may get in" },
    cache: {
      help: "where the region comes to lie: file:/path or dir:/path",
      value: "url",
      label: "URL",
      required: true,
    },
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
    "max-downtime": {
      help: "how long the program may stand still",
      value: "text",
      label: "TIME",
      default: "100ms",
    },
    "max-time": {
      help: "how long to try for that at most",
      value: "text",
      label: "TIME",
      default: "60s",
    },
    strategy: {
      help: "what to do where that fails",
      value: ["wait", "force", "throttle", "cancel"],
      default: "wait",
    },
    confirm: {
      help: "commit once all is here, or ahead of it",
      value: ["auto", "ahead", "after"],
      default: "auto",
    },
    "max-suspend": {
      help: "how long the source may stop; then it goes on",
      value: "text",
      label: "TIME",
      default: "10s",
    },
    follow: {
      help: "stay a standby, a round every TIME, until it is promoted",
      value: "text",
      label: "TIME",
    },
    profile: {
      help: "file with the order of reads, written anew in the end",
      value: "path",
      label: "FILE",
    },
    "pull-workers": {
      help: "requests that copy at a time; as measured unless given",
      value: "count",
      label: "N",
    },
    "pull-rate": {
      help: "bytes a second to copy at most, such as 20MB/s",
      value: "text",
      label: "RATE",
    },
    "token-file": {
      help: "file with the token of the seeder, asked of others too",
      value: "path",
      label: "FILE",
    },
    json: JSON_OPTION,
  },
  examples: [
    {
      call: "telemap leech telemap://server:4100 --cache file:/srv/disk.img --device loop",
      does: "the region of a telemap seed on another host",
    },
    {
      call: "telemap leech telemap://server:4100 --cache file:/srv/disk.img " +
        "--listen telemap://[::1]:4100",
      does: "the same, and from here it may move on",
    },
  ],
  async run([source], options) {
    using stop = new StopSignals();
    const token = await readToken(options["token-file"]);
    const { json, at, device, strategy, confirm } = options;
    const goal = {
      maxDowntime: parseDuration(options["max-downtime"]),
      maxTime: parseDuration(options["max-time"]),
      suspendMs: parsePositive("--max-suspend", options["max-suspend"]),
      ...{ strategy, confirm },
    };
    const interval = options.follow === undefined
      ? undefined
      : parsePositive("--follow", options.follow);
    using promotions = interval === undefined ? undefined : new Promotions();
    if (options.group && at !== undefined) {
      throw new UsageError("Cannot have several regions appear in one directory", {
        hint: "leave out --at",
      });
    }
    const how = {
      source: options.accept ? { listen: source!, token, insecure: options.insecure } : source!,
      ...{ local: options.cache, device, as: "path" as const },
      ...(token !== undefined && { token }),
      ...(options.profile !== undefined && { profile: options.profile }),
      ...pullOptions(options["pull-workers"], options["pull-rate"]),
    };
    await using program = new ProgramCommands(options.suspend, options.resume);
    const chain = chainOf(options, { token, program });
    const opening = options.group
      ? leechGroup(how)
      : Leecher.open({ ...how, ...(at !== undefined && { at }) });
    // A source that is to dial may never do so.
    const leecher = await Promise.race([opening, stop.received.then(() => undefined)]);
    if (leecher === undefined) {
      // What is open by then is taken away again; the rest ends with this process.
      opening.then((late) => late.close()).catch(() => {});
      if (json) console.log(JSON.stringify({ event: "closed" }));
      return;
    }
    const next = chain && new NextSeeder(leecher.seed(chain));
    using teller = tellMigration(leecher, options);
    const print = (line: string) => {
      teller.clear();
      console.log(line);
    };
    const complain = (line: string) => {
      teller.clear();
      console.error(`telemap: ${line}`);
    };
    const say = (event: string, metrics: MigrationMetrics, line: string) =>
      print(json ? JSON.stringify({ event, ...metrics }) : line);
    const stopped = Promise.race([
      stop.received.then(() => undefined),
      ...(next === undefined ? [] : [next.failed]),
    ]);
    const over = new AbortController();
    let lost: Error | undefined;
    let mounted: Mounted | undefined, missing: Missing | undefined;
    /** Takes over; a standby whose source does not let go stays one. */
    const takeOver = async (maxTime: number): Promise<Mounted> => {
      if (promotions === undefined) return mountedOf(await leecher.finalize({ ...goal, maxTime }));
      for (;;) {
        const { sourceIsDead } = await standBy(leecher, interval!, promotions, (metrics) => {
          if (!teller.shows) say("lag", metrics, lagOf(metrics));
        });
        try {
          // The source may turn out to be dead while it is asked.
          const taken = sourceIsDead
            ? undefined
            : await Promise.race([leecher.finalize(goal), promotions.sourceIsDead]);
          if (taken !== undefined) return mountedOf(taken);
          const promoted = await leecher.promoteAsSourceIsDead();
          missing = promoted.missing;
          return mountedOf(promoted.mount);
        } catch (error) {
          complain((error as Error).message);
        }
      }
    };
    /** After the takeover: answers when this side is needed no more. */
    const goOn = async (): Promise<undefined> => {
      await completedAtLast(leecher, over.signal, (error) => {
        if (json) console.log(JSON.stringify({ event: "unsettled", message: error.message }));
        complain(error.message);
        complain("the region stays here, and its source is needed on; trying again");
      });
      const metrics = await leecher.progress();
      const agreed = metrics.root === "" ? "" : `, as it was given (root digest ${metrics.root})`;
      say("complete", metrics, `Everything is here${agreed}; the source is needed no more`);
      if (next === undefined) return await stopped;
      const { url, released } = await next.ready;
      print(
        json ? JSON.stringify({ event: "seeding", url }) : `Others may take it over at ${url}`,
      );
      await released;
    };
    try {
      // Who forces does not wait for all of it, nor does a standby that is promoted before.
      const isForced = strategy === "force" && promotions === undefined;
      const late = isForced ? goal.maxTime : Infinity, start = performance.now();
      const isCopied = await Promise.race([
        isCopiedWithin(leecher, late),
        ...(promotions === undefined ? [] : [promotions.next().then(() => false)]),
        stopped,
      ]);
      if (isCopied !== undefined) {
        if (isCopied) {
          const metrics = await leecher.progress();
          say("progress", metrics, `Copied ${formatSize(metrics.size)}; following`);
        }
        const maxTime = isForced ? Math.max(start + late - performance.now(), 0) : goal.maxTime;
        mounted = await Promise.race([takeOver(maxTime), stopped]);
      }
      if (mounted !== undefined) {
        const metrics = await leecher.progress();
        print(
          json
            ? JSON.stringify({ ...metrics, event: "ready", ...mountFields(mounted), missing })
            : `Took over ${mountWords(mounted)} ${
              missing === undefined ? summaryOf(metrics) : missingOf(missing)
            }`,
        );
        lost = await Promise.race([goOn(), stopped, firstGone(mounted)]);
      }
    } finally {
      over.abort();
      const close = () => next === undefined ? leecher.close() : next.close(leecher);
      await (mounted === undefined ? close() : closeOnceFree(pathsOf(mounted), close))
        .catch((error) => lost ??= error);
    }
    if (lost !== undefined) throw lost;
    if (json) console.log(JSON.stringify({ event: "closed" }));
  },
});

/** Answers whether all was copied once within so many ms, as soon as that is known. */
async function isCopiedWithin(leecher: Leeching<unknown>, milliseconds: number): Promise<boolean> {
  const copied = leecher.copied().then(() => true);
  const over = new AbortController();
  try {
    return await Promise.race([copied, pauseFor(milliseconds, over.signal).then(() => false)]);
  } finally {
    over.abort();
  }
}

/**
 * Answers when the source is needed no more. The region is here, and in use: where its source is away, it
 * goes on all the same, and that is tried again.
 */
async function completedAtLast(
  leecher: Leeching<unknown>,
  over: AbortSignal,
  onFailure: (error: Error) => void,
): Promise<void> {
  for (let pause: number = RETRY_MS.FIRST;; pause = Math.min(pause * 2, RETRY_MS.MOST)) {
    try {
      return await leecher.completed();
    } catch (error) {
      if (over.aborted) throw error;
      onFailure(error as Error);
      await pauseFor(pause, over);
    }
  }
}

/** One region or a group, as what is told of it takes it. */
function mountedOf(taken: Mount | Mounted): Mounted {
  return "device" in taken ? oneMount(taken) : taken;
}

function lagOf({ lagMs, lagBytes, rounds }: MigrationMetrics): string {
  return `Behind by ${(lagMs / 1000).toFixed(1)} s and ${lagBytes} bytes at least; round ${rounds}`;
}

function missingOf({ bytes, milliseconds }: Missing): string {
  return `as its source is dead; ${bytes} bytes are known to be missing, and what was written in ` +
    `the last ${(milliseconds / 1000).toFixed(1)} s before that may be`;
}

function summaryOf(metrics: MigrationMetrics): string {
  const { downtimeMs, rounds, receivedBytes, suspendMs, flushMs, lastSetMs, confirmMs } = metrics;
  const parts = { suspend: suspendMs, flush: flushMs, "last set": lastSetMs, confirm: confirmMs };
  const told = Object.entries(parts).map(([name, ms]) => `${name} ${ms.toFixed(1)}`).join(", ");
  return `after ${downtimeMs.toFixed(1)} ms of downtime (${told}), ${rounds} rounds and ` +
    `${(receivedBytes / 2 ** 20).toFixed(0)} MiB`;
}

function pullOptions(
  workers: number | undefined,
  rate: string | undefined,
): { pullWorkers?: number; pullRate?: number } {
  return {
    ...(workers !== undefined && { pullWorkers: workers }),
    ...(rate !== undefined && { pullRate: parsePullRate(rate) }),
  };
}

/** A time in ms that is not nothing. */
function parsePositive(option: string, text: string): number {
  const milliseconds = parseDuration(text);
  if (milliseconds > 0) return milliseconds;
  throw new UsageError(`${option} needs some time, such as 1s, not ${text}`);
}
