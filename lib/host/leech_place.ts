/**
 * The place that a region comes to on this host, and whether it may come there by the record that
 * lies there.
 *
 * @module
 */
import { readdirSync, statSync } from "node:fs";
import { TelemapError, UsageError } from "../backend/errors.ts";
import { type HandoverFile, readHandover } from "../backend/handover_file.ts";
import { GROUP_PEER } from "../backend/handover_group.ts";
import { type HandoverRecord, UNRECORDED } from "../backend/handover_record.ts";
import { type HandoverPlace, handoverPlace } from "./handover_place.ts";

/** Where the record of the place that a region comes to lies; undefined for one in memory. */
export function leechPlace(cacheUrl: string): HandoverPlace | undefined {
  return /^memory:/i.test(cacheUrl) ? undefined : handoverPlace(cacheUrl);
}

/**
 * The record of the place that a region comes to. Throws {@linkcode UsageError} where something else
 * is there, with what is to be done about it.
 */
export function leechRecord(cacheUrl: string, place: HandoverPlace | undefined): HandoverRecord {
  if (place === undefined) return UNRECORDED;
  const record = readHandover(place.path);
  const isNew = record.time === 0 && !isThere(place.region);
  if (isNew || ["receiving", "confirming", "taken"].includes(record.state)) return record;
  const { what, hint } = occupied(cacheUrl, place, record);
  throw new UsageError(`Cannot bring a region to ${cacheUrl}, where ${what}`, { hint });
}

/** Throws where somebody was there between the first look at a record and its lock. */
export function checkUnchanged(
  handover: HandoverFile,
  found: HandoverRecord,
  cacheUrl: string,
): void {
  const { state, epoch, time } = handover.record;
  if (state === found.state && epoch === found.epoch && time === found.time) return;
  throw new TelemapError("EBUSY", `Cannot bring a region to ${cacheUrl}: EBUSY`, {
    hint: "another process was there meanwhile: look at it with telemap migrate status",
  });
}

function occupied(
  url: string,
  { path, region, isWithin }: HandoverPlace,
  { time, state, epoch, peer }: HandoverRecord,
): { what: string; hint: string } {
  if (time === 0) {
    return { what: "there is something else", hint: "name a place where there is nothing" };
  }
  const remove = isWithin ? `rm -r '${region}'` : `rm -f '${region}' '${path}'`;
  switch (state) {
    case "released":
      return {
        what: `one lies that was given away (epoch ${epoch}), and whose new owner has all of it`,
        hint: `make room for it with ${remove}, or name another place`,
      };
    case "given": {
      const seed = peer.startsWith(GROUP_PEER)
        ? "seeding its group again"
        : `telemap seed '${url}' --listen URL`;
      return {
        what: `one lies that was given away (epoch ${epoch}), and whose new owner may lack some`,
        hint: `let that fetch the rest by ${seed}, and then make room with ${remove}; ` +
          "or name another place",
      };
    }
    default:
      return {
        what: `one lies that is owned here (epoch ${epoch})`,
        hint:
          "it needs no leecher: use it with telemap mount or telemap seed, or name another place",
      };
  }
}

function isThere(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found !== undefined && !(found.isDirectory() && readdirSync(path).length === 0);
}
