/**
 * What an isolate and its tracking Worker say to each other.
 *
 * @module
 */
import type { TrackedRange } from "./write_tracker.ts";

/** What the Worker is asked; each command is answered once, by its id. */
export type TrackCommand =
  & { id: number }
  & (
    /** Begins to track; the userfaultfd is the Worker's from then on, unless that fails. */
    | { command: "track"; fd: number; wakeFd: number; range: TrackedRange }
    /** Collects what was written. */
    | { command: "collect" }
    /** Makes ranges dirty again. */
    | { command: "restore"; bounds: Float64Array<ArrayBuffer> }
    /** Tracks on with memory that has grown. */
    | { command: "grow"; size: number }
    /** Closes the userfaultfd and ends the Worker. */
    | { command: "close" }
  );

/** What it answers. */
export interface TrackAnswer {
  /** The command's. */
  id: number;
  /** What was written, after `collect`. */
  bounds?: Float64Array<ArrayBuffer>;
  /** Why the command failed; the Worker goes on unless it was `track`. */
  error?: { code: string; message: string };
}
