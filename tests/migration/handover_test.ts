/**
 * The tables of a handover, searched through all that can happen: there are never two writers, and
 * never none for good. Each rule is then broken in turn, and the search has to find that out.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  outcomeOf,
  sourceAfterRestart,
  type SourceEvent,
  sourceMayWrite,
  type SourceState,
  type SourceStep,
  stepSource,
} from "../../lib/migration/source_handover.ts";
import {
  stepTarget,
  targetAfterRestart,
  type TargetEvent,
  targetMayWrite,
  type TargetState,
  type TargetStep,
} from "../../lib/migration/target_handover.ts";
import { type Bounds, handoverModel, type Rules } from "./handover_model.ts";
import { search } from "./search.ts";

const RULES: Rules = {
  ...{ stepSource, sourceAfterRestart, outcomeOf, sourceMayWrite },
  ...{ stepTarget, targetAfterRestart, targetMayWrite },
  ...{ checksTrackId: true, promotesWithCare: true },
};

const SMALL: Bounds = {
  ...{ targets: 1, epochs: 1, restarts: 0, targetsCrash: true, inFlight: 2, promotes: false },
};
const RESTARTS: Bounds = { ...SMALL, restarts: 1 };
const TWO_EPOCHS: Bounds = { ...SMALL, epochs: 2 };
const TWO_TARGETS: Bounds = { ...SMALL, targets: 2, targetsCrash: false, inFlight: 1 };
const ONE_TARGET: Bounds = { ...SMALL, epochs: 2, restarts: 1, promotes: true };
const SEARCHED: Record<string, Bounds> = {
  "one leecher": ONE_TARGET,
  "two leechers": TWO_TARGETS,
};
// These take a minute.
if (Deno.env.has("TELEMAP_DEEP_SEARCH")) {
  SEARCHED["one leecher, of whose messages three are under way"] = { ...ONE_TARGET, inFlight: 3 };
  SEARCHED["two leechers, of whose messages two are under way"] = { ...TWO_TARGETS, inFlight: 2 };
}

for (const [name, bounds] of Object.entries(SEARCHED)) {
  Deno.test(`${name}: no world has two writers, and each has a way out`, () => {
    const { worlds, moves, settled, fault } = search(handoverModel(RULES, bounds));
    console.log(`${name}: ${worlds} worlds, ${moves} moves, ${settled} worlds settled`);
    assertEquals(fault, undefined);
    assert(worlds > 25_000 && settled > 900);
  });
}

/** Rules of which the source breaks one where `change` answers. */
function sourceThat(
  change: (state: SourceState, event: SourceEvent) => SourceStep | undefined,
): Partial<Rules> {
  return { stepSource: (state, event) => change(state, event) ?? stepSource(state, event) };
}

/** Rules of which the target breaks one where `change` answers. */
function targetThat(
  change: (state: TargetState, event: TargetEvent) => TargetStep | undefined,
): Partial<Rules> {
  return { stepTarget: (state, event) => change(state, event) ?? stepTarget(state, event) };
}

interface Broken {
  breaks: string;
  rules: Partial<Rules>;
  /** {@linkcode SMALL} unless told. */
  bounds?: Bounds;
  /** What the search is to say. */
  finds: string;
}

const BROKEN_SOURCES: Broken[] = [
  {
    breaks: "gives before the record is there",
    rules: sourceThat((state, { type }) => {
      if (type !== "confirm" || state.at !== "offered") return;
      return { state: { ...state, at: "given" }, actions: [{ record: "given" }, "answer"] };
    }),
    finds: "the source has no record of it",
  },
  {
    breaks: "takes back when the record failed",
    rules: sourceThat((state, { type }) => {
      if (type !== "recordFailed" || state.at !== "committing") return;
      return { state: { at: "resuming", epoch: state.epoch }, actions: ["resume"] };
    }),
    finds: "the source writes again after it gave",
  },
  {
    breaks: "takes back while it commits",
    rules: sourceThat((state, { type }) => {
      if (type !== "takeBack" || state.at !== "committing") return;
      return { state: { at: "resuming", epoch: state.epoch }, actions: ["resume"] };
    }),
    finds: "the source writes again after it gave",
  },
  {
    breaks: "lets a cancel take back what it gave",
    rules: sourceThat((state, { type }) => {
      if (type !== "cancel" || state.at !== "given") return;
      return { state: { at: "resuming", epoch: state.epoch }, actions: ["resume", "answer"] };
    }),
    finds: "the source writes again after it gave",
  },
  {
    breaks: "gives up a commit whose record failed, without resuming",
    rules: sourceThat((state, { type }) => {
      return type === "recordFailed" && state.at === "committing"
        ? { state, actions: [] }
        : undefined;
    }),
    finds: "there is no way out",
  },
  {
    breaks: "says that it serves while it commits",
    rules: {
      outcomeOf: (state) => {
        const outcome = outcomeOf(state);
        return state.at === "committing" ? { ...outcome, state: "serving" } : outcome;
      },
    },
    finds: "there is no way out",
  },
  {
    breaks: "forgets the record in a restart",
    rules: { sourceAfterRestart: ({ epoch }) => ({ at: "serving", epoch }) },
    bounds: RESTARTS,
    finds: "the source writes again after it gave",
  },
  {
    breaks: "takes a SUSPEND for the tracking of a process before",
    rules: { checksTrackId: false },
    bounds: { ...RESTARTS, epochs: 2 },
    finds: "takes what it did not receive",
  },
  {
    breaks: "offers an epoch again that it took back",
    rules: sourceThat((state, event) => {
      if (!("offer" in state) || event.type !== "takeBack") return;
      const step = stepSource(state, event);
      if (step.state.at !== "resuming") return;
      return { ...step, state: { ...step.state, epoch: state.epoch - 1 } };
    }),
    finds: "takes what it did not receive",
  },
  {
    breaks: "confirms to another leecher",
    rules: sourceThat((state, event) => {
      if (event.type !== "confirm" || state.at !== "offered") return;
      return stepSource({ ...state, offer: event.offer }, event);
    }),
    bounds: { ...TWO_TARGETS, epochs: 2 },
    finds: "takes what it did not receive",
  },
  {
    breaks: "lets the program write while it commits",
    rules: { sourceMayWrite: (state) => sourceMayWrite(state) || state.at === "committing" },
    finds: "the source writes again after it gave",
  },
  {
    breaks: "gives an epoch that was cancelled before it came",
    rules: sourceThat((state, event) => {
      return event.type === "cancel" && state.at === "serving"
        ? { state, actions: ["answer"] }
        : undefined;
    }),
    bounds: { ...SMALL, inFlight: 3 },
    finds: "there is no way out",
  },
];

const BROKEN_TARGETS: Broken[] = [
  {
    breaks: "owns what it is offered",
    rules: targetThat((state, { type }) => {
      if (type !== "received" || state.at !== "receiving") return;
      const { epoch } = state;
      return { state: { at: "taken", epoch, recorded: true }, actions: ["distrust", "own"] };
    }),
    finds: "no record of it",
  },
  {
    breaks: "follows again once its CONFIRM is refused",
    rules: targetThat((state, { type }) => {
      if (type !== "refused" || state.at !== "confirming") return;
      return { state: { at: "following", epoch: state.epoch }, actions: ["follow"] };
    }),
    finds: "there is no way out",
  },
  {
    breaks: "cancels without an answer once it has confirmed",
    rules: targetThat((state, { type }) => {
      if (type !== "cancel" || state.at !== "confirming") return;
      return { state: { at: "cancelled", epoch: state.epoch }, actions: ["stop"] };
    }),
    finds: "there is no way out",
  },
  {
    breaks: "asks for the suspension before its record is there",
    rules: targetThat((state, { type }) => {
      if (type !== "begin" || state.at !== "following") return;
      const { epoch } = state;
      const asking: TargetState = { at: "asking", epoch: epoch + 1, ahead: false, given: false };
      return { state: asking, actions: [{ ask: "suspend" }] };
    }),
    finds: "there is no way out",
  },
  {
    breaks: "forgets in a restart that it is in doubt",
    rules: {
      targetAfterRestart: (record) => {
        if (record.state !== "confirming") return targetAfterRestart(record);
        return { state: { at: "following", epoch: record.epoch }, actions: ["follow"] };
      },
    },
    finds: "there is no way out",
  },
  {
    breaks: "trusts after a restart what it received before",
    rules: targetThat((state, event) => {
      const { state: next, actions } = stepTarget(state, event);
      if (state.at !== "doubting" || next.at !== "taken") return;
      return { state: next, actions: actions.filter((action) => action !== "distrust") };
    }),
    finds: "takes what it did not receive",
  },
  {
    breaks: "lets the source go before it has recorded that it has it all",
    rules: targetThat((state, { type }) => {
      if (type !== "whole" || state.at !== "taken") return;
      return {
        state: { at: "owner", epoch: state.epoch, done: false },
        actions: [{ ask: "done" }],
      };
    }),
    finds: "the source let go before",
  },
  {
    breaks: "takes an answer about another epoch for one about this",
    rules: targetThat((state, event) => {
      if (event.type !== "outcome") return;
      return stepTarget(state, { ...event, epoch: state.epoch });
    }),
    bounds: TWO_EPOCHS,
    finds: "there is no way out",
  },
  ...(["asking", "confirming", "doubting", "cancelling", "owner"] as const).map((at): Broken => ({
    breaks: `does not ask again in ${at}`,
    rules: targetThat((state, { type }) => {
      return type === "unanswered" && state.at === at ? { state, actions: [] } : undefined;
    }),
    finds: "there is no way out",
  })),
  {
    breaks: "is promoted while the source lives",
    rules: { promotesWithCare: false },
    bounds: { ...SMALL, promotes: true },
    finds: "two may write",
  },
];

for (
  const [side, broken] of [["source", BROKEN_SOURCES], ["target", BROKEN_TARGETS]] as const
) {
  for (const { breaks, rules, bounds = SMALL, finds } of broken) {
    Deno.test(`the search finds a ${side} that ${breaks}`, () => {
      const { fault } = search(handoverModel({ ...RULES, ...rules }, bounds));
      assertStringIncludes(fault ?? "nothing", finds);
    });
  }
}
