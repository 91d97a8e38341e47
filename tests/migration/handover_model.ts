/**
 * All that can happen in a handover, as a model to be searched: the tables of both sides, with a
 * network between them, records on disks, crashes and users.
 *
 * What was sent may be lost, arrive in any order and any number of times, also at a process that was
 * started since; only answers do not outlive the process that asked. Any request may be refused for
 * no reason. A write of a record succeeds, fails and is on the disk, or fails and is not, and a crash
 * in it leaves either. Both sides may crash at any time; users may take back, give up and cancel.
 *
 * @module
 */
import { type HandoverRecord, NOBODY, UNRECORDED } from "../../lib/backend/handover_record.ts";
import type * as source from "../../lib/migration/source_handover.ts";
import type * as target from "../../lib/migration/target_handover.ts";
import { Fault, type Model, type Visit } from "./search.ts";

/** The tables that are put to the test, and what those around them have to see to. */
export interface Rules {
  stepSource: typeof source.stepSource;
  sourceAfterRestart: typeof source.sourceAfterRestart;
  outcomeOf: typeof source.outcomeOf;
  sourceMayWrite: typeof source.sourceMayWrite;
  stepTarget: typeof target.stepTarget;
  targetAfterRestart: typeof target.targetAfterRestart;
  targetMayWrite: typeof target.targetMayWrite;
  /** A SUSPEND for the tracking of another process is refused. */
  checksTrackId: boolean;
  /** A user promotes a target only where the source is gone for good. */
  promotesWithCare: boolean;
}

/** How much may happen. */
export interface Bounds {
  /** Leechers. */
  targets: number;
  /** Epochs that are handed over under. */
  epochs: number;
  /** Restarts of the source. */
  restarts: number;
  /** Whether targets crash, as often as they like. */
  targetsCrash: boolean;
  /** Messages of each target under way at a time; what is sent beyond is lost. */
  inFlight: number;
  /** Whether the source may be gone for good, upon which a user promotes the target. */
  promotes: boolean;
}

/** A record as far as it decides anything. */
type Disk = Pick<HandoverRecord, "state" | "epoch" | "leech" | "promoted">;

interface Target {
  readonly state: target.TargetState | "down";
  readonly disk: Disk;
  /** Records that are to be written, the first of them now. */
  readonly writes: readonly Disk[];
  /** The process of the source whose track id it has. */
  readonly track: number;
  /** Whether it has the last set of this epoch, and that still is the last. */
  readonly content: "none" | "last" | "stale";
}

/** Everything at one time. */
interface World {
  readonly source: source.SourceState | "down" | "gone";
  readonly disk: Disk;
  readonly write: Disk | undefined;
  /** Which process of the source it is, from 1. */
  readonly process: number;
  /** What its hooks do now, and what is to follow. */
  readonly hooks: "" | "suspend" | "suspend, resume" | "resume";
  readonly targets: readonly Target[];
  /** What is under way, as sorted characters that stand for messages. */
  readonly net: string;
}

/** Of or for target `at`, about an epoch. */
interface Head {
  readonly at: number;
  readonly epoch: number;
  /** Whether the process that asked is gone. */
  readonly orphan: boolean;
}

type Request = Head & {
  readonly to: "source";
  readonly type: Exclude<target.TargetRequest, "last">;
  readonly track: number;
};

type Answer =
  & Head
  & (
    | { readonly to: "target"; readonly type: "offered"; readonly stale: boolean }
    | { readonly to: "target"; readonly type: "refused"; readonly request: target.TargetRequest }
    | {
      readonly to: "target";
      readonly type: "outcome";
      readonly outcome: source.Outcome;
      readonly mine: boolean;
    }
  );

/** The model of a handover by these rules. */
export function handoverModel(rules: Rules, bounds: Bounds): Model<World> {
  const model = new HandoverModel(rules, bounds);
  return {
    first: first(bounds),
    keyOf,
    moves: (world, visit) => model.moves(world, visit),
    faultOf: (world, before) => model.faultOf(world, before),
    isSettled,
    isExcused: waitsForUser,
  };
}

class HandoverModel {
  readonly #rules: Rules;
  readonly #bounds: Bounds;
  readonly #messages: (Request | Answer)[] = [];
  readonly #codes = new Map<string, string>();

  constructor(rules: Rules, bounds: Bounds) {
    this.#rules = rules;
    this.#bounds = bounds;
  }

  moves(world: World, visit: Visit<World>): void {
    if (world.source === "down") this.#sourceStarts(world, world.disk, visit);
    else if (world.source !== "gone") this.#sourceMoves(world, world.source, visit);
    for (const [at, one] of world.targets.entries()) {
      if (one.state === "down") this.#targetStarts(world, at, visit);
      else this.#targetMoves(world, at, one.state, visit);
    }
    this.#networkMoves(world, visit);
  }

  faultOf({ source, disk, targets }: World, before: World): string | undefined {
    const writers = targets.filter(({ state }) => {
      return state !== "down" && this.#rules.targetMayWrite(state);
    });
    const sourceWrites = isUp(source) && this.#rules.sourceMayWrite(source);
    if (writers.length + (sourceWrites ? 1 : 0) > 1) return "two may write";
    const gave = before.disk.state !== "owner";
    if (gave && sourceWrites) return "the source writes again after it gave";
    if (gave && disk.state === "owner") return "the source forgot that it gave";
    if (writers.length > 0 && disk.state === "owner" && source !== "gone") {
      return "a target writes, and the source has no record of it";
    }
    if (disk.state === "released" && !targets.some((one) => one.disk.state === "owner")) {
      return "the source let go before a target had recorded that it has it all";
    }
    if (before.disk.epoch > disk.epoch) return "an epoch shrank";
  }

  #sourceStarts(world: World, disk: Disk, visit: Visit<World>): void {
    const state = this.#rules.sourceAfterRestart({ ...UNRECORDED, ...disk });
    if (state === undefined) throw new Fault(`no source begins with ${disk.state}`);
    const begun = { ...world, source: state, process: world.process + 1 };
    visit(
      "source restarts",
      this.#rules.sourceMayWrite(state) ? this.#outdated(begun) : begun,
      true,
    );
  }

  #sourceMoves(world: World, state: source.SourceState, visit: Visit<World>): void {
    const { write, hooks, process } = world;
    const put = (label: string, event: source.SourceEvent, bySelf: boolean, from = world) => {
      visit(`source ${label}`, this.#putSource(from, event), bySelf);
    };
    if (hooks === "resume") put("resumed", { type: "resumed" }, true, { ...world, hooks: "" });
    else if (hooks !== "") {
      const after: World = { ...world, hooks: hooks === "suspend" ? "" : "resume" };
      put("suspended", { type: "suspended" }, true, after);
      put("cannot suspend", { type: "suspendFailed" }, false, after);
    }
    if (write !== undefined) {
      const unwritten: World = { ...world, write: undefined };
      const written = { ...unwritten, disk: write };
      put(`recorded ${write.state}`, { type: "recorded" }, true, written);
      put(`failed to record ${write.state}`, { type: "recordFailed" }, false, unwritten);
      put(`failed, and recorded ${write.state}`, { type: "recordFailed" }, false, written);
    }
    put("takes back", { type: "takeBack" }, false);
    if ("offer" in state) put("waited long", { type: "deadline", epoch: state.offer.epoch }, true);
    const end = (label: string, source: "down" | "gone") => {
      const ended: World = { ...world, source, write: undefined, hooks: "" };
      visit(`source ${label}`, ended, false);
      if (write === undefined) return;
      visit(`source ${label} as it recorded ${write.state}`, { ...ended, disk: write }, false);
    };
    if (process <= this.#bounds.restarts) end("crashes", "down");
    if (this.#bounds.promotes) end("is gone", "gone");
  }

  #targetStarts(world: World, at: number, visit: Visit<World>): void {
    const { disk } = world.targets[at]!;
    const begun = this.#rules.targetAfterRestart({ ...UNRECORDED, ...disk });
    if (begun === undefined) throw new Fault(`no target begins with ${disk.state}`);
    visit(`target ${at} restarts`, this.#follow(world, at, begun), true);
  }

  #targetMoves(
    world: World,
    at: number,
    state: target.TargetState,
    visit: Visit<World>,
  ): void {
    const { bounds, one } = { bounds: this.#bounds, one: world.targets[at]! };
    const put = (label: string, event: target.TargetEvent, bySelf: boolean, from = world) => {
      visit(`target ${at} ${label}`, this.#putTarget(from, at, event), bySelf);
    };
    if (state.at === "following" && isUp(world.source)) {
      const from = withTarget(world, at, { ...one, track: world.process });
      for (let epoch = state.epoch + 1; epoch <= bounds.epochs; epoch++) {
        for (const ahead of [false, true]) {
          const label = `begins ${epoch}${ahead ? ", confirming ahead" : ""}`;
          put(label, { type: "begin", epoch, ahead }, false, from);
        }
      }
    }
    const [write, ...writes] = one.writes;
    if (write !== undefined) {
      const event = { record: write.state as target.TargetRecord, epoch: write.epoch };
      const unwritten = withTarget(world, at, { ...one, writes });
      const written = withTarget(world, at, { ...one, writes, disk: write });
      put(`recorded ${write.state}`, { ...event, type: "recorded" }, true, written);
      put(`failed to record`, { ...event, type: "recordFailed" }, false, unwritten);
      put(`failed, and recorded`, { ...event, type: "recordFailed" }, false, written);
    }
    put("has received", { type: "received", epoch: state.epoch }, true);
    put("waited long", { type: "unanswered" }, true);
    put("abandons", { type: "abandon" }, false);
    put("cancels", { type: "cancel" }, false);
    if (isUp(world.source)) put("has it all", { type: "whole" }, true);
    const mayPromote = bounds.promotes &&
      (world.source === "gone" || !this.#rules.promotesWithCare);
    if (mayPromote) put("is promoted", { type: "promote" }, false);
    if (!bounds.targetsCrash) return;
    const net = this.#orphaned(world.net, at);
    const down: Target = { state: "down", disk: one.disk, writes: [], track: 0, content: "none" };
    visit(`target ${at} crashes`, { ...withTarget(world, at, down), net }, false);
    if (write === undefined) return;
    const written = { ...withTarget(world, at, { ...down, disk: write }), net };
    visit(`target ${at} crashes as it recorded ${write.state}`, written, false);
  }

  #networkMoves(world: World, visit: Visit<World>): void {
    for (let index = 0; index < world.net.length; index++) {
      const message = this.#messages[world.net.charCodeAt(index)]!;
      const rest = { ...world, net: world.net.slice(0, index) + world.net.slice(index + 1) };
      visit("a message is lost", rest, false);
      if (message.to === "source" && isUp(world.source)) {
        const label = `source gets ${message.type} ${message.epoch} of ${message.at}`;
        visit(label, this.#toSource(rest, message), true);
        visit(`${label}, and will again`, this.#toSource(world, message), true);
        visit(`${label}, and fails`, this.#send(rest, refusalOf(message)), false);
      } else if (message.to === "target" && world.targets[message.at]!.state !== "down") {
        const told = message.type === "outcome" ? message.outcome.state : message.type;
        const label = `target ${message.at} gets ${told} about ${message.epoch}`;
        visit(label, this.#toTarget(rest, message), true);
        visit(`${label}, and will again`, this.#toTarget(world, message), true);
      }
    }
  }

  #toSource(world: World, request: Request): World {
    const { at, epoch, type } = request;
    if (type === "suspend" && this.#rules.checksTrackId && request.track !== world.process) {
      return this.#send(world, refusalOf(request));
    }
    return this.#putSource(world, { type, offer: { leech: leechOf(at), epoch } }, request);
  }

  #toTarget(world: World, answer: Answer): World {
    const { at, epoch } = answer;
    if (answer.type !== "offered") return this.#putTarget(world, at, answer);
    const before = world.targets[at]!;
    const next = this.#putTarget(world, at, { type: "offered", epoch });
    const after = next.targets[at]!;
    if (after.state === before.state) return next;
    return withTarget(next, at, { ...after, content: answer.stale ? "stale" : "last" });
  }

  /** What an event makes of the source. A request that is to wait is lost, and made again. */
  #putSource(world: World, event: source.SourceEvent, request?: Request): World {
    if (!isUp(world.source)) throw new Error("The source is not up");
    const { state, actions } = this.#rules.stepSource(world.source, event);
    if (state === world.source && actions.length === 0) return world;
    let next: World = { ...world, source: state };
    const { sourceMayWrite } = this.#rules;
    if (sourceMayWrite(state) && !sourceMayWrite(world.source)) next = this.#outdated(next);
    for (const action of actions) {
      if (action === "suspend") next = { ...next, hooks: "suspend" };
      else if (action === "resume") {
        next = { ...next, hooks: next.hooks === "suspend" ? "suspend, resume" : "resume" };
      } else if (action === "answer" && request !== undefined) {
        next = this.#send(next, this.#answerOf(next, request));
      } else if (typeof action === "string") continue;
      else if ("refuse" in action) {
        if (request !== undefined) next = this.#send(next, refusalOf(request));
      } else if ("offer" in state) {
        next = { ...next, write: { ...state.offer, state: action.record, promoted: false } };
      }
    }
    return next;
  }

  #answerOf(world: World, { at, epoch, orphan, type }: Request): Answer {
    const head = { to: "target", at, epoch, orphan } as const;
    if (type === "suspend") return { ...head, type: "offered", stale: false };
    const outcome = this.#rules.outcomeOf(world.source as source.SourceState);
    return { ...head, type: "outcome", outcome, mine: outcome.leech === leechOf(at) };
  }

  #putTarget(world: World, at: number, event: target.TargetEvent): World {
    const { state } = world.targets[at]!;
    if (state === "down") throw new Error("The target is down");
    return this.#follow(world, at, this.#rules.stepTarget(state, event));
  }

  /** Does what a step of a target says. */
  #follow(world: World, at: number, { state, actions }: target.TargetStep): World {
    const before = world.targets[at]!;
    if (state === before.state && actions.length === 0) return world;
    const writes = [...before.writes];
    let next = world;
    for (const action of actions) {
      if (action === "own" && state.at === "taken" && !actions.includes("distrust")) {
        checkContent(world, at, state.epoch);
      }
      if (typeof action === "string") continue;
      if ("record" in action) {
        const promoted = state.at === "promoting";
        writes.push({ state: action.record, epoch: action.epoch, leech: leechOf(at), promoted });
      } else if (action.ask !== "last") {
        const track = action.ask === "suspend" ? before.track : 0;
        const head = { to: "source", at, epoch: state.epoch, orphan: false } as const;
        next = this.#send(next, { ...head, type: action.ask, track });
      }
    }
    const asks = state.at === "preparing" || state.at === "asking";
    const holds = state.at === "receiving" || state.at === "confirming" ||
      state.at === "cancelling";
    const track = asks ? before.track : 0, content = holds ? before.content : "none";
    return withTarget(next, at, { ...before, state, writes, track, content });
  }

  /** The source may write again: what was received as the last set is not that any more. */
  #outdated(world: World): World {
    const codes = Array.from(world.net, (code) => {
      const message = this.#messages[code.charCodeAt(0)]!;
      return message.type === "offered" ? this.#codeOf({ ...message, stale: true }) : code;
    });
    const targets = world.targets.map((one): Target => {
      return one.content === "last" ? { ...one, content: "stale" } : one;
    });
    return { ...world, targets, net: [...new Set(codes)].sort().join("") };
  }

  #send(world: World, message: Request | Answer): World {
    const { at, orphan } = message;
    if (orphan && message.to === "target") return world;
    const code = this.#codeOf(message);
    if (world.net.includes(code)) return world;
    let under = 0;
    for (let index = 0; index < world.net.length; index++) {
      if (this.#messages[world.net.charCodeAt(index)]!.at === at) under++;
    }
    if (under >= this.#bounds.inFlight) return world;
    return { ...world, net: [...world.net, code].sort().join("") };
  }

  /** What is under way once a target is gone: nobody waits for answers to what it asked. */
  #orphaned(net: string, gone: number): string {
    const codes = new Set<string>();
    for (const code of net) {
      const message = this.#messages[code.charCodeAt(0)]!;
      if (message.at !== gone) codes.add(code);
      else if (message.to === "source") codes.add(this.#codeOf({ ...message, orphan: true }));
    }
    return [...codes].sort().join("");
  }

  #codeOf(message: Request | Answer): string {
    const { at, epoch, orphan, type } = message;
    const more = message.to === "source" ? message.track : moreOf(message);
    const key = `${at} ${epoch} ${orphan} ${type} ${more}`;
    let code = this.#codes.get(key);
    if (code === undefined) {
      code = String.fromCharCode(this.#messages.push(message) - 1);
      this.#codes.set(key, code);
    }
    return code;
  }
}

function moreOf(answer: Answer): string {
  if (answer.type === "offered") return `${answer.stale}`;
  if (answer.type === "refused") return answer.request;
  const { state, epoch, leech } = answer.outcome;
  return `${state} ${epoch} ${leech} answer`;
}

function first({ targets }: Bounds): World {
  return {
    source: { at: "serving", epoch: 0 },
    disk: { state: "owner", epoch: 0, leech: NOBODY, promoted: false },
    ...{ write: undefined, process: 1, hooks: "", net: "" },
    targets: Array.from({ length: targets }, (_, at) => ({
      state: { at: "following", epoch: 0 },
      disk: { state: "receiving", epoch: 0, leech: leechOf(at), promoted: false },
      ...{ writes: [], track: 0, content: "none" },
    })),
  };
}

/** Whether one side has the region, and nobody waits for anything. */
function isSettled({ source, targets, hooks, write }: World): boolean {
  const ends = targets.map(({ state }) => {
    if (state === "down") return "waits";
    if (state.at === "owner") return state.done ? "owns" : "waits";
    return state.at === "following" || state.at === "cancelled" || state.at === "lost"
      ? "rests"
      : "waits";
  });
  if (hooks !== "" || write !== undefined || ends.includes("waits")) return false;
  const owners = ends.filter((end) => end === "owns").length;
  if (isUp(source) && source.at === "serving") return owners === 0;
  return owners === 1 && (source === "gone" || isUp(source) && source.at === "released");
}

/** Where the source is gone, only the user can tell: until then there need be no way out. */
function waitsForUser({ source, targets }: World): boolean {
  return source === "gone" && targets.every(({ state, disk }) => {
    return !disk.promoted && (state === "down" || state.at !== "promoting");
  });
}

/** A target that begins to own without a doubt is to have the very content that the source gave. */
function checkContent(world: World, at: number, epoch: number): void {
  const { state, content } = world.targets[at]!;
  if (state === "down") return;
  if (content !== "last" || epoch !== world.disk.epoch) {
    throw new Fault(`target ${at} takes what it did not receive for the region`);
  }
}

function leechOf(at: number): string {
  return `${at + 1}`.repeat(32);
}

function isUp(source: World["source"]): source is source.SourceState {
  return source !== "down" && source !== "gone";
}

function refusalOf({ at, epoch, orphan, type: request }: Request): Answer {
  return { to: "target", at, epoch, orphan, type: "refused", request };
}

function withTarget(world: World, at: number, one: Target): World {
  return { ...world, targets: world.targets.with(at, one) };
}

function keyOf({ source, disk, write, process, hooks, targets, net }: World): string {
  let key = `${stateKey(source)},${diskKey(disk)},${write?.state},${process},${hooks}`;
  for (const { state, disk, writes, track, content } of targets) {
    key += `,${stateKey(state)},${diskKey(disk)},${writes.map(diskKey)},${track},${content}`;
  }
  return `${key},${net}`;
}

function diskKey({ state, epoch, leech, promoted }: Disk): string {
  return `${state}${epoch}${leech[0]}${promoted ? "p" : ""}`;
}

function stateKey(state: World["source"] | Target["state"]): string {
  if (typeof state === "string") return state;
  let key: string = state.at;
  for (const value of Object.values(state)) {
    key += typeof value === "object" ? `/${value.leech[0]}${value.epoch}` : `/${value}`;
  }
  return key;
}
