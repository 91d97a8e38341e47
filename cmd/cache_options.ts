/**
 * The options of `telemap mount` that are about the cache of a managed mount.
 *
 * @module
 */
import { parseDuration } from "../lib/backend/duration.ts";
import { parseRate } from "../lib/backend/rate.ts";
import { type ManagedMountOptions, UsageError } from "../mod.ts";
import type { Options, Values } from "./command.ts";

/** See the module. */
export const CACHE_OPTIONS = {
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
  profile: {
    help: "file with the order of reads: what comes first; written anew",
    value: "path",
    label: "FILE",
  },
  "pull-workers": {
    help: "requests that fill the cache at a time; as measured, or 0 for none",
    value: "text",
    label: "N",
  },
  "pull-rate": {
    help: "bytes a second that fill the cache at most, such as 20MB/s",
    value: "text",
    label: "RATE",
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
} as const satisfies Options;

/** How a mount works behind a cache. */
export type CacheChoice = Omit<ManagedMountOptions, "remote">;

type CacheValues = Values<typeof CACHE_OPTIONS>;

/** Those without a default, which only a managed mount can heed. */
const OF_MANAGED = [
  "cache",
  "profile",
  "pull-workers",
  "pull-rate",
  "pull-first",
  "push-workers",
  "discard-cache",
] as const satisfies (keyof CacheValues)[];

/**
 * The cache that options ask for; undefined where they ask for none.
 *
 * @throws {UsageError} only some of those were given that belong together, or a value makes no sense.
 */
export function readCacheOptions(values: CacheValues): CacheChoice | undefined {
  const { managed, cache, profile } = values;
  if (!managed) {
    const vain = OF_MANAGED.find((name) => values[name] !== undefined && values[name] !== false);
    if (vain === undefined) return undefined;
    throw incomplete(`--${vain} without --managed`);
  }
  if (cache === undefined) throw incomplete("--managed without --cache");
  return {
    local: cache,
    chunkSize: values.chunk,
    ...(profile !== undefined && { profile }),
    ...pullOptions(values),
    pushWorkers: values["push-workers"],
    pushInterval: parseDuration(values["push-interval"]),
    durability: values.durability,
    discardCache: values["discard-cache"],
  };
}

function pullOptions(values: CacheValues): Partial<CacheChoice> {
  const workers = values["pull-workers"], rate = values["pull-rate"];
  return {
    pullFirst: values["pull-first"],
    ...(workers !== undefined && { pullWorkers: parseWorkers(workers) }),
    ...(rate !== undefined && { pullRate: parsePullRate(rate) }),
  };
}

/** Bytes a second, of `--pull-rate`. */
export function parsePullRate(text: string): number {
  const rate = parseRate(text);
  if (rate > 0) return rate;
  throw new UsageError("Cannot pull at a rate of 0", {
    hint: "--pull-rate takes bytes a second over 0, such as 20MB/s",
  });
}

/** A count that may be 0. */
function parseWorkers(text: string): number {
  if (/^[0-9]{1,5}$/.test(text)) return Number(text);
  throw new UsageError(`Cannot pull by ${JSON.stringify(text)} requests`, {
    hint: "--pull-workers takes a whole number, 0 or more",
  });
}

function incomplete(what: string): UsageError {
  return new UsageError(`Cannot mount with ${what}`, {
    hint: "a cache takes both: --managed --cache file:/path",
  });
}
