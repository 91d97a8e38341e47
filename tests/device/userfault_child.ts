/**
 * A process for device tests that mounts a slice of memory, and touches it as it is asked to, line by
 * line: other threads wait for pages here, or the process ends by a signal.
 *
 *     deno run -A userfault_child.ts '{ "backend": URL } or { "size": BYTES, "failing": READS, … }'
 *
 * @module
 */
import { TextLineStream } from "@std/streams";
import { addressOf } from "../../ffi/libc.ts";
import { type DirectMountOptions, type Mount, mountDirect } from "../../mod.ts";
import { readOnThread } from "../touch.ts";
import { ScriptedBackend } from "./scripted_module.ts";

/** What is mounted, and how. */
export interface ChildOptions {
  /** The region; a scripted one unless told. */
  backend?: string;
  /** Bytes of the scripted one. */
  size?: number;
  /** How many of its first reads fail. */
  failing?: number;
  /** Whether it holds its reads at first. */
  held?: boolean;
  /** Whether it answers at once. */
  atOnce?: boolean;
  /** Whether its memory is said to lie where there is none. */
  astray?: boolean;
  memory?: DirectMountOptions["memory"];
  readOnly?: boolean;
}

function say(line: string): void {
  console.log(line);
}

/** Why something failed, as a word. */
function nameOf(error: unknown): string {
  return error instanceof Error && "code" in error ? `${error.code}` : `${error}`;
}

async function touch(mount: Mount, offset: number): Promise<void> {
  const [byte] = await readOnThread(addressOf(mount.bytes) + offset, 1);
  say(`touched ${offset} ${byte}`);
}

const options = JSON.parse(Deno.args[0]!) as ChildOptions;
const { size = 1 << 20, failing = 0, held, atOnce = false, astray = false } = options;
const scripted = new ScriptedBackend(size, { atOnce, astray });
scripted.fail(failing);
if (held) scripted.hold();
const mount = await mountDirect({
  backend: options.backend ?? scripted.source,
  device: "userfault",
  as: "slice",
  readOnly: options.readOnly ?? false,
  memory: options.memory ?? {},
  closeMs: 5000,
});
void mount.closed.then((error) => error !== undefined && say(`gone ${error.message}`));
say("mounted");

const commands: Record<string, (argument: number) => Promise<void> | void> = {
  // Touches it on this thread.
  read: (offset) => say(`read ${mount.bytes[offset]}`),
  write: (offset) => {
    mount.bytes[offset]! ^= 255;
    say("written");
  },
  // Touches it on another one.
  touch: (offset) => void touch(mount, offset),
  asked: (reads) => scripted.asked(reads).then(() => say("asked")),
  release: () => {
    scripted.release();
    say("released");
  },
  hold: () => scripted.hold(),
  die: () => scripted.die(),
  sync: () => mount.sync().then(() => say("synced"), (error) => say(`failed ${nameOf(error)}`)),
  close: () => mount.close().then(() => say("closed"), (error) => say(`failed ${nameOf(error)}`)),
  exit: () => Deno.exit(0),
};

const lines = Deno.stdin.readable
  .pipeThrough(new TextDecoderStream())
  .pipeThrough(new TextLineStream());
for await (const line of lines) {
  const [command, argument] = line.split(" ");
  await commands[command!]!(Number(argument));
}
