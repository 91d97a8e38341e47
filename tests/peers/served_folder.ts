/**
 * Tests that serve a region by NBD from a socket in a folder of their own.
 *
 * @module
 */
import { serve, type ServeOptions, type Server } from "../../lib/host/serve.ts";
import { type Requirement, withReason } from "../requires.ts";

/** Registers a test that has an empty folder until its end. */
export function test(
  name: string,
  needs: Requirement,
  run: (folder: string) => Promise<void>,
): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      try {
        await run(folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

/** Serves on a socket in the folder. */
export function serveAt(
  folder: string,
  backend = "memory:256MiB",
  options: ServeOptions = {},
): Promise<Server> {
  return serve(backend, `nbd+unix:///${options.name ?? ""}?socket=${folder}/socket`, options);
}
