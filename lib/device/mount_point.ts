/**
 * The directory that a file system of ours is mounted on: found, or made and removed again.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";

/** A directory to mount on. */
export interface MountPoint {
  /** Its absolute path, free of links, as mount tables show it. */
  path: string;
  /** Removes the directory if it was made here; one that is not empty stays. */
  remove(): void;
}

/**
 * Prepares a directory. With `at` it is that one: an empty directory, or one that is made in an
 * existing directory. Without, it is a fresh one that only this user may enter, under
 * `$XDG_RUNTIME_DIR` or the directory for temporary files.
 *
 * @throws {UsageError} `at` is not empty, no directory, or in a directory that does not exist.
 */
export function prepareMountPoint(at: string | undefined): MountPoint {
  if (at === undefined) return made(freshDirectory());
  const found = stat(at);
  if (found === undefined) return made(makeDirectory(at));
  if (!found.isDirectory) throw refusal(at, "it is not a directory");
  for (const { name } of Deno.readDirSync(at)) {
    throw refusal(at, `it is not empty: it holds ${JSON.stringify(name)}`);
  }
  return { path: Deno.realPathSync(at), remove: () => {} };
}

function freshDirectory(): string {
  const runtime = Deno.env.get("XDG_RUNTIME_DIR");
  if (runtime !== undefined && stat(runtime)?.isDirectory) {
    try {
      return Deno.makeTempDirSync({ dir: runtime, prefix: "telemap-" });
    } catch (error) {
      if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    }
  }
  return Deno.makeTempDirSync({ prefix: "telemap-" });
}

function makeDirectory(path: string): string {
  try {
    Deno.mkdirSync(path, { mode: 0o755 });
    return path;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw refusal(path, "the directory above it does not exist");
    }
    throw error;
  }
}

function made(path: string): MountPoint {
  return {
    path: Deno.realPathSync(path),
    remove: () => {
      try {
        Deno.removeSync(path);
      } catch {
        // Somebody mounted on it, put something there or removed it: theirs now.
      }
    },
  };
}

function stat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function refusal(path: string, why: string): UsageError {
  return new UsageError(`Cannot mount on ${path} as ${why}`, {
    hint: "name an empty directory, or a new one in a directory that exists",
  });
}
