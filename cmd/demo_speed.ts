/**
 * Measures a region for the demo: whole passes of 1 MiB, and reads of 4 KiB at random places.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Backend } from "../mod.ts";

/** What was measured on one way to the region. */
export interface Speed {
  /** The way, for people. */
  way: string;
  /** Bytes a second, writing all of it once, with the flush. */
  write: number;
  /** Bytes a second, reading all of it once. */
  read: number;
  /** Median of the time that a read of 4 KiB takes, in microseconds. */
  median: number;
  /** The time that 99 of 100 such reads stay under, in microseconds. */
  percentile99: number;
  /** SHA-256 of the content. */
  checksum: string;
}

const STEP = 1 << 20;
const BLOCK = 4096;
const RANDOM_READS = 1000;

/** Writes all of it with content that differs from step to step and run to run. */
export async function timeWriting(region: Backend): Promise<{ checksum: string; speed: number }> {
  const content = new Uint8Array(STEP);
  for (let at = 0; at < STEP; at += 65536) crypto.getRandomValues(content.subarray(at, at + 65536));
  const stamp = new DataView(content.buffer);
  const hash = createHash("sha256");
  let elapsed = 0;
  for (let offset = 0; offset < region.size; offset += STEP) {
    for (let at = 0; at < STEP; at += BLOCK) stamp.setFloat64(at, offset + at);
    hash.update(content);
    const started = performance.now();
    await region.writeAt(content, offset);
    elapsed += performance.now() - started;
  }
  const started = performance.now();
  await region.flush();
  elapsed += performance.now() - started;
  return { checksum: hash.digest("hex"), speed: region.size / (elapsed / 1000) };
}

/** Reads all of it. */
export async function timeReading(region: Backend): Promise<{ checksum: string; speed: number }> {
  const content = new Uint8Array(STEP);
  const hash = createHash("sha256");
  let elapsed = 0;
  for (let offset = 0; offset < region.size; offset += STEP) {
    const started = performance.now();
    await region.readAt(content, offset);
    elapsed += performance.now() - started;
    hash.update(content);
  }
  return { checksum: hash.digest("hex"), speed: region.size / (elapsed / 1000) };
}

/** Reads blocks at random places, one after another. */
export async function timeRandomReads(
  region: Backend,
): Promise<{ median: number; percentile99: number }> {
  const block = new Uint8Array(BLOCK);
  const times: number[] = [];
  for (let i = 0; i < RANDOM_READS; i++) {
    const offset = Math.floor(Math.random() * (region.size / BLOCK)) * BLOCK;
    const started = performance.now();
    await region.readAt(block, offset);
    times.push((performance.now() - started) * 1000);
  }
  times.sort((a, b) => a - b);
  return { median: times[RANDOM_READS / 2]!, percentile99: times[RANDOM_READS * 0.99]! };
}

/** The measurements as a table. */
export function speedTable(speeds: readonly Speed[]): string {
  const rows = [
    ["", "write", "read", "4 KiB read, median", "99 %"],
    ...speeds.map(({ way, write, read, median, percentile99 }) => [
      way,
      `${Math.round(write / 2 ** 20)} MiB/s`,
      `${Math.round(read / 2 ** 20)} MiB/s`,
      `${Math.round(median)} µs`,
      `${Math.round(percentile99)} µs`,
    ]),
  ];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
  ).join("\n");
}
