/**
 * What `telemap seed` and `telemap leech` have mounted: one region, or the parts of a group.
 *
 * @module
 */
import { formatSize, type Mount, UsageError } from "../mod.ts";

/** Mounts by the names of their parts; one region is the part with no name. */
export type Mounted = ReadonlyMap<string, Mount>;

/** One region as a {@linkcode Mounted}. */
export function oneMount(mount: Mount): Mounted {
  return new Map([["", mount]]);
}

/** What scripts are told of them: of a group as `parts`. */
export function mountFields(mounted: Mounted): Record<string, unknown> {
  const fields = [...mounted].map(([name, { device, path, size }]) => ({
    ...(name !== "" && { name }),
    ...{ device, path, size },
  }));
  return mounted.has("") ? fields[0]! : { parts: fields };
}

/** The same for people. */
export function mountWords(mounted: Mounted): string {
  return [...mounted].map(([name, { device, path, size }]) =>
    `${name === "" ? "" : `${name}: `}${sizeWords(size)} at ${path} by ${device}`
  ).join(", ");
}

/** A size that is no multiple of a unit is told in bytes. */
function sizeWords(size: number): string {
  const text = formatSize(size);
  return text === `${size}` ? `${size} bytes` : text;
}

/** Where they are, as the subject of what is said of one of them. */
export function pathsOf(mounted: Mounted): string {
  return [...mounted.values()].map(({ path }) => path).join(" or ");
}

/** Settles as the first of them that is gone. */
export function firstGone(mounted: Mounted): Promise<Error | undefined> {
  return Promise.race([...mounted.values()].map(({ closed }) => closed));
}

/** A value of `--group` of the form NAME=BACKEND. Throws {@linkcode UsageError} for any other. */
export function parsePart(text: string): { name: string; backend: string } {
  const [, name, backend] = /^([\w][\w.-]*)=(.+)$/.exec(text) ?? [];
  if (name !== undefined && backend !== undefined) return { name, backend };
  throw new UsageError(`Cannot take ${text} as a part of a group`, {
    hint:
      "expected NAME=BACKEND, such as disk=file:/srv/disk.img, with a name of letters, digits, " +
      "and . _ - within",
  });
}
