/**
 * The ways in which a user names a backend, and how the name travels to the Worker that opens it.
 *
 * @module
 */
import type { Backend, SharedBackend } from "../backend/backend.ts";
import { UsageError } from "../backend/errors.ts";
import type { Guard } from "./listen_at.ts";
import type { ManagedOptions } from "./managed_backend.ts";
import type { LeechOptions, SeedOptions } from "./migrating_backend.ts";

/** A module that makes a backend: its default export is an {@linkcode OpenBackend}. */
export interface BackendModule {
  /** Where the module is: an absolute URL (`import.meta.resolve("./mine.ts")`). */
  module: string;
  /** Passed to its default export; structured-cloneable. */
  options?: unknown;
}

/** The default export of a {@linkcode BackendModule}. */
export type OpenBackend = (options: unknown) => Backend | Promise<Backend>;

/** A backend: by URL, by a module that makes it, or made already. */
export type BackendSource = string | URL | BackendModule | Backend;

/** A region whose server dials this host, as it is behind no open port (`dialOut`). */
export interface DialledSource {
  /** Where to listen for it, with the name of its export. */
  listen: string | URL;
  /** What it has to show. */
  token?: string | undefined;
  /** Listen beyond this host although whoever reaches the port may be the server. */
  insecure?: boolean | undefined;
}

/** Several backends as the parts of one region that moves as a whole. */
export interface GroupSource {
  /** In the order in which they lie there. */
  parts: readonly GroupSourcePart[];
}

/** A part of a {@linkcode GroupSource}. */
export interface GroupSourcePart {
  /** By what it is known at both sides. */
  name: string;
  /** Its bytes. */
  backend: BackendSource;
}

/** What a host opens. */
export type HostSource = BackendSource | DialledSource | GroupSource;

/** Whether it is the region's server that dials. */
export function isDialled(source: HostSource): source is DialledSource {
  return typeof source === "object" && "listen" in source;
}

/** Whether it is several backends. */
export function isGroup(source: HostSource): source is GroupSource {
  return typeof source === "object" && "parts" in source && !("readAt" in source);
}

/** A region at a server, as it crosses to a Worker; of those that are dialled, who listens there. */
export type RemoteSource =
  | { kind: "url"; url: string; token?: string | undefined }
  | { kind: "dialled"; listen: string; guard: Guard };

/** A source as it crosses to a Worker. */
export type PortableSource =
  | RemoteSource
  | { kind: "module"; module: string; options: unknown }
  | { kind: "shared"; shared: SharedBackend }
  | { kind: "port"; port: MessagePort }
  | { kind: "group"; parts: readonly { name: string; source: PortableSource }[] }
  /** A region that can move to another host. */
  | { kind: "seeded"; source: PortableSource; options: SeedOptions }
  /** One that comes from another host into a cache on this one. */
  | { kind: "leeched"; remote: RemoteSource; cache: string; options: LeechOptions }
  /** A region behind a cache on this host, which is named by URL. */
  | { kind: "managed"; remote: PortableSource; cache: string; options: ManagedOptions };

/** Whether the source is a backend that this isolate made itself. */
export function isBackend(source: HostSource): source is Backend {
  return typeof source === "object" && "readAt" in source;
}

/** A region at a server as it crosses to a Worker. */
export function portableRemote(source: string | URL | DialledSource, token?: string): RemoteSource {
  if (typeof source === "string" || source instanceof URL) {
    return { kind: "url", url: `${source}`, token };
  }
  const { listen, token: shown = token, insecure } = source;
  return { kind: "dialled", listen: `${listen}`, guard: { token: shown, insecure } };
}

/** A URL or module as it crosses to a Worker. Throws {@linkcode UsageError} for anything else. */
export function portable(
  source: string | URL | BackendModule,
  token?: string,
): PortableSource {
  if (typeof source === "string") return { kind: "url", url: source, token };
  if (source instanceof URL) return { kind: "url", url: source.href, token };
  if (typeof source === "object" && typeof source.module === "string") {
    if (!URL.canParse(source.module)) {
      throw new UsageError(`Cannot import ${source.module} as a module in a Worker`, {
        hint: 'give its absolute URL, such as import.meta.resolve("./mine.ts")',
      });
    }
    return { kind: "module", module: source.module, options: source.options };
  }
  throw new UsageError("Cannot use this as a backend", {
    hint: "give a URL, { module, options } or an object with the methods of Backend",
  });
}
