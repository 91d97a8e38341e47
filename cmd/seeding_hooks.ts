/**
 * What commands have in common that let others take a region over: what is run on the way, and what
 * is told of it.
 *
 * @module
 */
import type { SeederHooks, SeederStage } from "../mod.ts";
import type { Options } from "./command.ts";
import type { ProgramCommands } from "./shell.ts";

/** The options for what is run. */
export const HOOK_OPTIONS = {
  suspend: { help: "shell command that stops what writes", value: "text", label: "CMD" },
  resume: { help: "shell command that lets it go on", value: "text", label: "CMD" },
} as const satisfies Options;

/** Runs them, and tells of each stage; with `json` for scripts. */
export function seedingHooks(program: ProgramCommands, json: boolean): SeederHooks {
  return {
    onSuspend: () => program.suspend(),
    onResume: () => program.resume(),
    onStage: (stage) => {
      // Where it took too long, nobody waits for it to stop the program.
      if (stage === "serving") void program.endSuspension();
      console.log(json ? JSON.stringify({ event: "stage", stage }) : SAID[stage]);
    },
  };
}

const SAID: Record<SeederStage, string> = {
  serving: "The region is here, and can be written",
  suspending: "Somebody takes the region over: suspending",
  offered: "The region is offered, and stands still",
  given: "The region was given away: writes fail here from now on",
  released: "Whoever has the region now needs this side no more",
};
