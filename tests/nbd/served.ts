/**
 * NBD servers of one backend, for tests of the transmission phase.
 *
 * @module
 */
import type { Backend } from "../../lib/backend/backend.ts";
import { SERVERS, type Wire } from "./wire.ts";

/** A backend that is served, also as the export `read-only`. */
export interface Served {
  /** The backend. */
  backend: Backend;
  /** A new connection. */
  connect(): Wire;
}

/** Registers a test for each way to connect. */
export function testOn(
  what: string,
  open: () => Backend,
  run: (served: Served) => Promise<void>,
): void {
  for (const [kind, start] of Object.entries(SERVERS)) {
    Deno.test(`NBD over ${kind} on ${what}`, async () => {
      await using backend = open();
      const offered = { name: "", description: "", readOnly: false, backend };
      const readOnly = { ...offered, name: "read-only", readOnly: true };
      await using server = start({ exports: () => [offered, readOnly] });
      await run({ backend, connect: () => server.connect() });
    });
  }
}

/** A backend with everything but what is told left out or harmless. */
export function fakeBackend(parts: Partial<Backend> & { size: number }): Backend {
  return {
    blockSize: 1,
    durable: false,
    readOnly: false,
    readAt: (buffer) => void buffer.fill(0),
    writeAt: () => {},
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
    ...parts,
  };
}
