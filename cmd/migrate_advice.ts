/**
 * What is to be done about a region, by who owns it, in words.
 *
 * @module
 */
import { GROUP_PEER } from "../lib/backend/handover_group.ts";
import type { Ownership } from "../lib/host/ownership.ts";

/** One line: which command meets the other side, or that nothing is to be done. */
export function migrateAdvice({ url, record, verdict, holder }: Ownership): string {
  const { state, peer, promoted } = record;
  const source = peer || "the source";
  const leech = `telemap leech ${peer || "SOURCE"} --cache '${url}'`;
  const seed = `telemap seed '${url}' --listen URL`;
  const dead = `where that is gone for good, telemap migrate recover '${url}' --source-is-dead`;
  if (holder !== undefined) return `wait for process ${holder}, which is at work on it`;
  switch (verdict) {
    case "owned":
      return promoted
        ? `nothing here; never let ${source} write its region again`
        : "nothing: it is owned here";
    case "fenced":
      if (state === "given" && peer.startsWith(GROUP_PEER)) {
        return "seed its group again: then the new owner can fetch the rest, or all of it is " +
          "owned here where it was not given after all";
      }
      return state === "released"
        ? "nothing: the new owner has all of it, so that it may be removed here"
        : `let the new owner fetch the rest: ${seed}`;
    case "incomplete":
      return `it is owned here, and the rest is at ${source}: go on with ${leech}; ${dead}`;
    case "copy":
      return `${source} owns it: go on with ${leech}; ${dead}`;
    case "undecided":
      return `only ${source} knows whether it gave it: telemap seed has to run there, then ` +
        `${leech}; ${dead}`;
  }
}
