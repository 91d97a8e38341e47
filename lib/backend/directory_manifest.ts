/**
 * What a directory of chunks says of itself: its size and chunk size, recorded once so that they
 * are never guessed, and a lock, so that one process at a time writes to it.
 *
 * The manifest is `telemap.json`, the lock `telemap.lock`; both stay for as long as the directory.
 *
 * @module
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { ERRNO, SystemError } from "../../ffi/errno.ts";
import { O } from "../../ffi/file.ts";
import { nodeCall } from "../../ffi/node_error.ts";
import { syncDirectory } from "./disk_file.ts";
import { IntegrityError, UsageError } from "./errors.ts";
import { lockFile } from "./lock_file.ts";
import { formatSize } from "./size.ts";

/** What the manifest records. */
export interface Manifest {
  /** Bytes of the region. */
  size: number;
  /** Bytes of a chunk; the last one may be shorter. */
  chunkSize: number;
}

const MANIFEST = "telemap.json";
const DRAFT = "telemap.json.new";
const LOCK_FILE = "telemap.lock";
const FORMAT = "telemap-directory";
const VERSION = 1;

const MIN_CHUNK = 4096;
const MAX_CHUNK = 2 ** 30;
/** So that the bit a chunk that is kept in memory comes to 32 MiB. */
const MAX_CHUNKS = 2 ** 28;

/** A manifest, and the descriptor that holds the lock for as long as it is open. */
export interface LockedManifest extends Manifest {
  /** The descriptor. */
  lock: number;
  /** Whether it was there before, so that others may have written to the directory. */
  inherited: boolean;
}

/** What {@linkcode lockManifest} is asked for. */
export interface ManifestRequest {
  /** An absolute path. */
  path: string;
  /** Bytes that the region has, or is made with. */
  size: number | undefined;
  /** Bytes that a chunk has, or is made with. */
  chunkSize: number | undefined;
  /** Lock it together with other readers, and make nothing. */
  readOnly: boolean;
}

/**
 * Locks a directory (shared where it is only read) and reads its manifest; makes both where there
 * are none and a size is given. Throws {@linkcode UsageError} where another size is recorded than
 * asked for or the directory holds something else, {@linkcode IntegrityError} where the manifest is
 * damaged, and {@linkcode SystemError} (EAGAIN: in use; ENOENT, EACCES, …).
 */
export function lockManifest(request: ManifestRequest): LockedManifest {
  const { path, readOnly } = request;
  const present = nodeCall("open", path, () => statSync(path, { throwIfNoEntry: false }));
  if (present === undefined) {
    if (request.size === undefined || readOnly) throw missing(path);
    nodeCall("mkdir", path, () => mkdirSync(path));
    syncDirectory(dirname(path));
  } else if (!present.isDirectory()) {
    throw new UsageError(`Cannot open ${path} as it is no directory`, {
      hint: "open a file by file: in place of dir:",
    });
  } else if (!isMember(path, LOCK_FILE)) {
    checkVacant(path, request);
  }
  const lock = lockFile(join(path, LOCK_FILE), { subject: path, readOnly });
  try {
    const inherited = isMember(path, MANIFEST);
    const manifest = inherited ? readManifest(path) : record(path, request);
    checkAsked(path, request, manifest);
    return { ...manifest, lock, inherited };
  } catch (error) {
    closeSync(lock);
    throw error;
  }
}

/** Gives the lock back. */
export function releaseManifest(manifest: LockedManifest): void {
  closeSync(manifest.lock);
}

function isMember(path: string, name: string): boolean {
  const file = join(path, name);
  return nodeCall("open", file, () => statSync(file, { throwIfNoEntry: false })) !== undefined;
}

function missing(path: string): SystemError {
  const hint = "check the path, or give a size to make the directory, such as ?size=1GiB";
  return new SystemError({ syscall: "open", errno: ERRNO.ENOENT, subject: path, hint });
}

/** A directory becomes a store only where it is empty: files of somebody else are left alone. */
function checkVacant(path: string, request: ManifestRequest): void {
  const [name] = nodeCall("open", path, () => readdirSync(path));
  if (name !== undefined) {
    throw new UsageError(`Cannot open ${path} as it is no store of chunks, and holds ${name}`, {
      hint: "name an empty directory or one that is not there yet",
    });
  }
  if (request.size === undefined || request.readOnly) throw missing(path);
}

/** Writes a new manifest, whole or not at all. */
function record(path: string, request: ManifestRequest): Manifest {
  const { size, chunkSize = defaultChunk(size ?? 0) } = request;
  if (size === undefined || request.readOnly) throw missing(path);
  const manifest = { size, chunkSize };
  const fault = faultOf(manifest);
  if (fault !== undefined) throw new UsageError(`Cannot make ${path}: ${fault}`);
  const draft = join(path, DRAFT);
  const text = JSON.stringify({ format: FORMAT, version: VERSION, ...manifest }) + "\n";
  nodeCall("write", draft, () => {
    const fd = openSync(draft, O.WRONLY | O.CREAT | O.TRUNC, 0o666);
    try {
      writeFileSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(draft, join(path, MANIFEST));
  });
  syncDirectory(path);
  return manifest;
}

function readManifest(path: string): Manifest {
  const file = join(path, MANIFEST);
  const text = nodeCall("read", file, () => {
    return statSync(file).size > 65536 ? "" : readFileSync(file, "utf8");
  });
  let found: Record<string, unknown>;
  try {
    found = Object(JSON.parse(text));
  } catch {
    throw damaged(file, "it is no JSON");
  }
  const { format, version, size, chunkSize } = found;
  if (format !== FORMAT) throw damaged(file, `its format is not ${FORMAT}`);
  if (version !== VERSION) {
    throw new UsageError(`Cannot open ${path} as it has version ${version} of its format`, {
      hint: `this telemap reads version ${VERSION}`,
    });
  }
  if (typeof size !== "number" || typeof chunkSize !== "number") {
    throw damaged(file, "it records no size or no chunk size");
  }
  const fault = faultOf({ size, chunkSize });
  if (fault !== undefined) throw damaged(file, fault);
  return { size, chunkSize };
}

function damaged(file: string, reason: string): IntegrityError {
  return new IntegrityError(`Cannot read ${file}: ${reason}`, {
    hint: "restore it from a copy; the chunks cannot be told without it",
  });
}

function checkAsked(path: string, asked: ManifestRequest, found: Manifest): void {
  const size = asked.size ?? found.size;
  const chunkSize = asked.chunkSize ?? found.chunkSize;
  if (size === found.size && chunkSize === found.chunkSize) return;
  throw new UsageError(
    `Cannot open ${path} with size ${formatSize(size)} and chunk ${formatSize(chunkSize)} as it ` +
      `has size ${formatSize(found.size)} and chunk ${formatSize(found.chunkSize)}`,
    { hint: "leave them out to take it as it is, or name another directory" },
  );
}

/** 1 MiB, or as much more as a huge region needs to have a bearable number of files. */
function defaultChunk(size: number): number {
  let chunkSize = 1 << 20;
  while (size / chunkSize > MAX_CHUNKS) chunkSize *= 2;
  return chunkSize;
}

/** Why a store cannot be of these sizes. */
function faultOf({ size, chunkSize }: Manifest): string | undefined {
  if (!Number.isSafeInteger(size) || size <= 0) return `a size of ${size} bytes is not over 0`;
  if (!(chunkSize >= MIN_CHUNK && chunkSize <= MAX_CHUNK) || chunkSize % MIN_CHUNK !== 0) {
    return `a chunk of ${chunkSize} bytes is no multiple of 4KiB up to 1GiB`;
  }
  if (size / chunkSize > MAX_CHUNKS) {
    return `a chunk of ${formatSize(chunkSize)} makes over ${MAX_CHUNKS} files`;
  }
  return undefined;
}
