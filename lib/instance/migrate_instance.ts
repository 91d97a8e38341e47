/**
 * Takes a WebAssembly instance over that runs in another process: a new instance of the same module
 * goes on here with its memory, its exported globals and the state of its application.
 *
 * @module
 */
import { IntegrityError, UsageError } from "../backend/errors.ts";
import { openBackend } from "../host/open_backend.ts";
import { type FinalizeRegionOptions, Leecher, type LeecherOptions } from "../mount/leecher.ts";
import type { MigrationMetrics } from "../migration/migration_metrics.ts";
import { decodeHead, HEAD_BYTES, type InstanceHead } from "./instance_head.ts";
import { checkGlobals, exportedMemory, writeGlobals } from "./instance_parts.ts";

const PAGE_BYTES = 65536;

/** How {@linkcode migrateInstance} takes an instance over. */
export interface MigrateInstanceOptions
  extends Pick<LeecherOptions, "source" | "token">, FinalizeRegionOptions {
  /** Makes another instance of the same module, while the first one still runs at the source. */
  instantiate: () => WebAssembly.Instance | Promise<WebAssembly.Instance>;
  /** The memory of such an instance; the only one that it exports unless told. */
  memory?: (instance: WebAssembly.Instance) => WebAssembly.Memory;
}

/** An instance that was taken over. */
export interface MigratedInstance {
  /** It, to go on with. */
  readonly instance: WebAssembly.Instance;
  /** What `state` answered at the source; undefined where there was none. */
  readonly state: unknown;
  /** Ms from the moment that the source was asked to suspend until the instance could go on here. */
  readonly downtimeMs: number;
  /** How the region moved that stood in for it. */
  readonly metrics: MigrationMetrics;
}

/**
 * Moves an instance here for which `seedInstance` was called in another process. It runs there until
 * little is left to be copied, is suspended, and goes on here. Where that fails it goes on there.
 * Needs userfaultfd, as any user may have it.
 *
 * @throws {DeadlineError} the program did not suspend itself, or writes faster than it is copied.
 * @throws {UsageError} what `instantiate` makes is no instance of the same module.
 * @throws {IntegrityError} what comes is no instance.
 */
export async function migrateInstance(
  options: MigrateInstanceOptions,
): Promise<MigratedInstance> {
  const { source, token, instantiate, memory: memoryOf = exportedMemory, ...goal } = options;
  const instance = await instantiate(), memory = memoryOf(instance);
  if (typeof source === "string" || source instanceof URL) {
    await checkSource(source, token, { instance, memory });
  }
  await using leecher = await Leecher.open({
    ...{ source, local: "memory:", as: "slice", device: "userfault" },
    ...(token !== undefined && { token }),
  });
  const { bytes } = await leecher.finalize(goal);
  const here = performance.now();
  const head = decodeHead(bytes.subarray(0, HEAD_BYTES));
  fillMemory(memory, bytes.subarray(HEAD_BYTES), head);
  writeGlobals(instance, head.globals);
  const filledMs = performance.now() - here;
  await leecher.completed();
  const metrics = await leecher.progress();
  return { instance, state: head.state, downtimeMs: metrics.downtimeMs + filledMs, metrics };
}

/** What does not fit is to be told while the instance still runs at the source. */
async function checkSource(
  source: string | URL,
  token: string | undefined,
  { instance, memory }: { instance: WebAssembly.Instance; memory: WebAssembly.Memory },
): Promise<void> {
  await using region = await openBackend(source, token === undefined ? {} : { token });
  const bytes = new Uint8Array(Math.min(HEAD_BYTES, region.size));
  await region.readAt(bytes, 0);
  const head = decodeHead(bytes);
  checkGlobals(instance, head.globals);
  checkMemory(memory, region.size - HEAD_BYTES, head);
}

function fillMemory(
  memory: WebAssembly.Memory,
  content: Uint8Array,
  { memoryBytes }: InstanceHead,
): void {
  checkMemory(memory, content.length, { memoryBytes });
  const missing = memoryBytes - memory.buffer.byteLength;
  // Also growing by nothing would take the buffer away from those who have a view of it.
  if (missing > 0) memory.grow(missing / PAGE_BYTES);
  new Uint8Array(memory.buffer).set(content.subarray(0, memoryBytes));
}

function checkMemory(
  { buffer }: WebAssembly.Memory,
  most: number,
  { memoryBytes }: Pick<InstanceHead, "memoryBytes">,
): void {
  if (memoryBytes > most || memoryBytes % PAGE_BYTES !== 0) {
    throw new IntegrityError(`Cannot fill a memory with ${memoryBytes} bytes of ${most}`);
  }
  if (buffer.byteLength <= memoryBytes) return;
  throw new UsageError(
    `Cannot fill a memory of ${buffer.byteLength} bytes as it had ${memoryBytes}`,
    { hint: "make an instance of the same module as at the source" },
  );
}
