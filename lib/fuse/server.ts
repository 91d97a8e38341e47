/**
 * A FUSE file system of one file, whose bytes are a backend's, served on a nonblocking `/dev/fuse`
 * descriptor in a reactor.
 *
 * The size of the file never changes: a write at its end is cut short, one beyond it fails with
 * ENOSPC, as on a block device. The kernel's write-back cache is left off, because with it the kernel
 * lets a file grow first and asks afterwards; so every write(2) is in the backend when it returns.
 * What is stored through a shared mapping waits in the page cache for msync, fsync or munmap.
 *
 * @module
 */
import { EPOLL } from "../../ffi/epoll.ts";
import { ERRNO, errno, SystemError } from "../../ffi/errno.ts";
import { close, FALLOC, SEEK } from "../../ffi/file.ts";
import { readv, writev } from "../../ffi/socket.ts";
import type { Awaitable, Backend } from "../backend/backend.ts";
import { errorCode, ProtocolError, UsageError } from "../backend/errors.ts";
import { FailureLog } from "../backend/failure_log.ts";
import type { Reactor } from "../net/reactor.ts";
import { FILE_NODE, type FileOptions, Nodes } from "./nodes.ts";
import {
  FALLOCATE_IN,
  FEATURE,
  FOPEN,
  IN_HEADER,
  INIT_IN,
  INTERRUPT_IN,
  LEAST_BODY,
  LSEEK_IN,
  OPCODE,
  OPEN_IN,
  RELEASE_IN,
  REPLY_SIZE,
  TRANSFER_IN,
  VERSION,
  writeInit,
  writeOpen,
  writeOutHeader,
  writeStatistics,
  writeU64,
  writeWritten,
} from "./protocol.ts";
import { MAX_TRANSFER, Request } from "./request.ts";
import { findRun } from "./seek.ts";
import { isBeingKilled } from "./thread.ts";

/** How a {@linkcode FuseServer} serves. */
export interface FuseServerOptions extends Partial<FileOptions> {
  /** The file's name in the root directory. */
  fileName: string;
  /** Refuse to open the file for writing even where the backend may be written. */
  readOnly?: boolean;
  /**
   * Called once when nothing is served any more: the file system was unmounted, {@linkcode
   * FuseServer.close} was called, or (with the error) the descriptor failed.
   */
  onDetached?: (error?: Error) => void;
}

/** Requests for one file system before others in the reactor have their turn. */
const REQUESTS_A_TURN = 32;
/** Requests that may be in a backend at a time; more are left with the kernel. */
const REQUESTS_MAX = 64;
/** Idle requests whose buffers stay populated. */
const REQUESTS_KEPT = 8;
const READAHEAD_BYTES = 4 << 20;
const PAGE = 4096;
const FEATURES = FEATURE.ASYNC_READ | FEATURE.BIG_WRITES | FEATURE.ASYNC_DIO |
  FEATURE.PARALLEL_DIROPS | FEATURE.HANDLE_KILLPRIV | FEATURE.MAX_PAGES;
/** Open flags as the kernel passes them (asm-generic/fcntl.h). */
const O_ACCMODE = 3;
/** File handles: what was opened for writing is counted. */
const HANDLE = { READER: 1, WRITER: 2 } as const;
/** Instead of the length of a reply: there is none, or it is sent already. */
const NO_REPLY = -0x1_0000;
const INTERRUPT_CHECK_MS = 100;
/** Errors of a backend that would say something else to the kernel, or to a program. */
const MISLEADING = new Set<number>([ERRNO.ENOSYS, ERRNO.EINTR, ERRNO.EAGAIN, ERRNO.ENOENT]);

/** See the module. */
export class FuseServer {
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #backend: Backend;
  readonly #readOnly: boolean;
  readonly #nodes: Nodes;
  readonly #onDetached: ((error?: Error) => void) | undefined;
  readonly #failures = new FailureLog("Cannot serve the mounted file, as its backend failed");
  readonly #inFlight = new Set<Request>();
  readonly #free: Request[] = [];
  #requests = 0;
  #writers = 0;
  #paused = false;
  #closed = false;

  /**
   * Begins to serve, and takes the descriptor over. Throws {@linkcode UsageError} for a backend
   * that needs alignment: the kernel asks for any range.
   */
  constructor(reactor: Reactor, fd: number, backend: Backend, options: FuseServerOptions) {
    if (backend.blockSize !== 1) {
      throw new UsageError(
        `Cannot serve a backend that needs ranges aligned to ${backend.blockSize} bytes as a file`,
        { hint: "put the align stage over it" },
      );
    }
    this.#reactor = reactor;
    this.#fd = fd;
    this.#backend = backend;
    this.#readOnly = backend.readOnly || options.readOnly === true;
    this.#onDetached = options.onDetached;
    const { fileName, mode = 0o600, uid = Deno.uid() ?? 0, gid = Deno.gid() ?? 0 } = options;
    const allowed = this.#readOnly ? mode & ~0o222 : mode;
    this.#nodes = new Nodes(backend.size, { fileName, mode: allowed, uid, gid });
    reactor.add(fd, EPOLL.IN, () => this.#ready());
  }

  /**
   * Serves nothing more and closes the descriptor: where the file system is still mounted, whoever
   * uses it gets ENOTCONN. Answers of the backend that come later are dropped.
   */
  close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reactor.remove(this.#fd);
    close(this.#fd);
    for (const request of this.#free.splice(0)) request.unmap();
    this.#onDetached?.(error);
  }

  #ready(): void {
    for (let turn = 0; turn < REQUESTS_A_TURN && !this.#closed; turn++) {
      const request = this.#take();
      if (request === undefined) return this.#pause();
      const length = readv(this.#fd, request.input, 1);
      if (length < 0) {
        const number = errno();
        this.#free.push(request);
        if (number === ERRNO.EAGAIN) return;
        // ENOENT: the request was withdrawn while it was being read.
        if (number !== ERRNO.EINTR && number !== ERRNO.ENOENT) return this.#lost(number);
      } else {
        request.length = length;
        this.#serve(request);
      }
    }
  }

  #lost(number: number): void {
    const unmounted = number === ERRNO.ENODEV || number === ERRNO.ECONNABORTED;
    const error = new SystemError({ syscall: "read", errno: number, subject: "/dev/fuse" });
    this.close(unmounted ? undefined : error);
  }

  #serve(request: Request): void {
    const { length, view, header } = request;
    if (length < IN_HEADER.SIZE || view.getUint32(header + IN_HEADER.LEN, true) !== length) {
      return this.close(new ProtocolError(`Cannot read a FUSE request of ${length} bytes`));
    }
    let outcome: Awaitable<number>;
    try {
      const enough = request.bodyLength >= (LEAST_BODY[request.opcode] ?? 0);
      outcome = enough ? this.#handle(request) : -ERRNO.EINVAL;
    } catch (error) {
      outcome = -this.#errnoOf(error);
    }
    if (typeof outcome !== "number") return this.#wait(request, outcome);
    this.#answer(request, outcome);
    this.#release(request);
  }

  /** Answers the bytes of the reply's body, a negative errno, or {@linkcode NO_REPLY}. */
  #handle(request: Request): Awaitable<number> {
    switch (request.opcode) {
      case OPCODE.READ:
        return this.#read(request);
      case OPCODE.WRITE:
        return this.#write(request);
      case OPCODE.FSYNC:
        return this.#whenDone(this.#backend.flush(), 0);
      case OPCODE.FALLOCATE:
        return this.#allocate(request);
      case OPCODE.LSEEK:
        return this.#seek(request);
      case OPCODE.OPEN:
        return this.#open(request);
      case OPCODE.RELEASE:
        if (request.u64(RELEASE_IN.HANDLE) === HANDLE.WRITER) this.#writers--;
        return 0;
      case OPCODE.FLUSH:
        // A close(2) asks no more once it was told so: nothing is held back here, and a process that
        // dies with the file open while it serves it itself must not wait for an answer.
        return -ERRNO.ENOSYS;
      case OPCODE.RELEASEDIR:
      case OPCODE.FSYNCDIR:
        return 0;
      case OPCODE.FORGET:
      case OPCODE.BATCH_FORGET:
        return NO_REPLY;
      case OPCODE.INTERRUPT:
        return this.#interrupt(request.u64(INTERRUPT_IN.UNIQUE));
      default:
        return this.#handleName(request);
    }
  }

  #handleName(request: Request): number {
    const { view, data } = request;
    switch (request.opcode) {
      case OPCODE.LOOKUP:
        return this.#nodes.lookup(request);
      case OPCODE.GETATTR:
        return this.#nodes.attributes(request);
      case OPCODE.SETATTR:
        return this.#nodes.setAttributes(request);
      case OPCODE.READDIR:
        return this.#nodes.list(request);
      case OPCODE.OPENDIR:
        writeOpen(view, data, 0, FOPEN.KEEP_CACHE | FOPEN.CACHE_DIR);
        return REPLY_SIZE.OPEN;
      case OPCODE.STATFS: {
        const blocks = Math.ceil(this.#backend.size / PAGE);
        writeStatistics(view, data, { blockSize: PAGE, blocks, files: 1 });
        return REPLY_SIZE.STATFS;
      }
      case OPCODE.INIT:
        return this.#initialise(request);
      case OPCODE.DESTROY:
        this.#answer(request, 0);
        this.close();
        return NO_REPLY;
      case OPCODE.SYMLINK:
      case OPCODE.MKNOD:
      case OPCODE.MKDIR:
      case OPCODE.UNLINK:
      case OPCODE.RMDIR:
      case OPCODE.RENAME:
      case OPCODE.RENAME2:
      case OPCODE.LINK:
      case OPCODE.CREATE:
      case OPCODE.TMPFILE:
        return -ERRNO.EPERM;
      default:
        // The kernel then does without, and does not ask again where it can tell.
        return -ERRNO.ENOSYS;
    }
  }

  #initialise(request: Request): number {
    const major = request.u32(INIT_IN.MAJOR);
    const minor = request.u32(INIT_IN.MINOR);
    if (major < VERSION.MAJOR || (major === VERSION.MAJOR && minor < VERSION.MINOR)) {
      return -ERRNO.EPROTO;
    }
    // To a later major version this reply says which one is spoken; INIT then comes again.
    writeInit(request.view, request.data, {
      minor: VERSION.MINOR,
      flags: request.u32(INIT_IN.FLAGS) & FEATURES,
      maxReadahead: READAHEAD_BYTES,
      maxBackground: REQUESTS_MAX,
      maxWrite: MAX_TRANSFER,
      maxPages: MAX_TRANSFER / PAGE,
    });
    return REPLY_SIZE.INIT;
  }

  #open(request: Request): number {
    if (request.node !== FILE_NODE) return -ERRNO.EISDIR;
    const writable = (request.u32(OPEN_IN.FLAGS) & O_ACCMODE) !== 0;
    if (writable && this.#readOnly) return -ERRNO.EROFS;
    if (writable) this.#writers++;
    const handle = writable ? HANDLE.WRITER : HANDLE.READER;
    writeOpen(request.view, request.data, handle, FOPEN.KEEP_CACHE);
    return REPLY_SIZE.OPEN;
  }

  #read(request: Request): Awaitable<number> {
    const offset = request.u64(TRANSFER_IN.OFFSET);
    const asked = request.u32(TRANSFER_IN.LENGTH);
    if (request.node !== FILE_NODE || asked > MAX_TRANSFER) return -ERRNO.EINVAL;
    const length = Math.min(asked, this.#backend.size - offset);
    if (length <= 0) return 0;
    const memory = this.#backend.memory;
    if (memory !== undefined) {
      writeOutHeader(request.view, request.reply, request.header, 0, length);
      this.#send(request, request.gatherMemory(memory.address + offset, length));
      return NO_REPLY;
    }
    return this.#whenDone(this.#backend.readAt(request.bytes(length), offset), length);
  }

  #write(request: Request): Awaitable<number> {
    const offset = request.u64(TRANSFER_IN.OFFSET);
    const given = request.u32(TRANSFER_IN.LENGTH);
    if (request.node !== FILE_NODE) return -ERRNO.EINVAL;
    if (given !== request.bodyLength - TRANSFER_IN.SIZE) return -ERRNO.EINVAL;
    if (this.#readOnly) return -ERRNO.EROFS;
    const length = Math.min(given, this.#backend.size - offset);
    if (length <= 0) return -ERRNO.ENOSPC;
    const pending = this.#backend.writeAt(request.bytes(length), offset);
    return pending === undefined
      ? this.#written(request, length)
      : pending.then(() => this.#written(request, length));
  }

  #written(request: Request, length: number): number {
    this.#nodes.touch();
    writeWritten(request.view, request.data, length);
    return REPLY_SIZE.WRITE;
  }

  /** fallocate(2): space is never short here, so only zeroing does anything. */
  #allocate(request: Request): Awaitable<number> {
    const offset = request.u64(FALLOCATE_IN.OFFSET);
    const end = offset + request.u64(FALLOCATE_IN.LENGTH);
    const mode = request.u32(FALLOCATE_IN.MODE);
    const { size } = this.#backend;
    if (request.node !== FILE_NODE) return -ERRNO.EINVAL;
    if (this.#readOnly) return -ERRNO.EROFS;
    if (end > size && (mode & FALLOC.KEEP_SIZE) === 0) return -ERRNO.ENOSPC;
    const what = mode & ~FALLOC.KEEP_SIZE;
    if (what === 0) return 0;
    if (what !== FALLOC.PUNCH_HOLE && what !== FALLOC.ZERO_RANGE) return -ERRNO.EOPNOTSUPP;
    // Writing zeroes instead would turn the discard of a whole disk into writing it.
    if (this.#backend.zero === undefined) return -ERRNO.EOPNOTSUPP;
    const length = Math.min(end, size) - offset;
    if (length <= 0) return 0;
    this.#nodes.touch();
    const allocate = what === FALLOC.ZERO_RANGE;
    return this.#whenDone(this.#backend.zero(offset, length, { allocate }), 0);
  }

  #seek(request: Request): Awaitable<number> {
    const offset = request.u64(LSEEK_IN.OFFSET);
    const whence = request.u32(LSEEK_IN.WHENCE);
    const { size } = this.#backend;
    if (whence !== SEEK.DATA && whence !== SEEK.HOLE) return -ERRNO.EINVAL;
    if (offset >= size) return -ERRNO.ENXIO;
    // A writer may have dirty pages over what is a hole in the backend, and the kernel does not
    // write them back before it asks. Without a writer there are none.
    if (this.#writers > 0) return this.#found(request, whence === SEEK.DATA ? offset : size);
    return findRun(this.#backend, offset, whence === SEEK.HOLE)
      .then((at) => at < 0 ? -ERRNO.ENXIO : this.#found(request, at));
  }

  #found(request: Request, offset: number): number {
    writeU64(request.view, request.data, offset);
    return REPLY_SIZE.LSEEK;
  }

  /**
   * A signal reached a thread that waits for a request in the backend. Only one that kills it may
   * end the wait: programs do not expect EINTR from a file. The kernel tells of the first signal
   * only, so from then on the thread is watched.
   */
  #interrupt(unique: number): number {
    for (const request of this.#inFlight) {
      if (request.unique === unique && !request.answered) this.#giveUpOnceKilled(request, unique);
    }
    return NO_REPLY;
  }

  #giveUpOnceKilled(request: Request, unique: number): void {
    if (this.#closed || !this.#inFlight.has(request) || request.unique !== unique) return;
    if (isBeingKilled(request.thread)) {
      this.#answer(request, -ERRNO.EINTR);
      request.answered = true;
    } else {
      const at = performance.now() + INTERRUPT_CHECK_MS;
      this.#reactor.addDeadline(at, () => this.#giveUpOnceKilled(request, unique));
    }
  }

  #whenDone(pending: Awaitable<void>, length: number): Awaitable<number> {
    return pending === undefined ? length : pending.then(() => length);
  }

  #wait(request: Request, outcome: Promise<number>): void {
    this.#inFlight.add(request);
    this.#reactor.beginAsync();
    outcome.then(
      (length) => this.#finish(request, length),
      (error) => this.#finish(request, -this.#errnoOf(error)),
    );
  }

  #finish(request: Request, outcome: number): void {
    this.#inFlight.delete(request);
    this.#reactor.endAsync();
    if (!request.answered) this.#answer(request, outcome);
    request.answered = false;
    this.#release(request);
    if (this.#paused && !this.#closed) {
      this.#paused = false;
      this.#reactor.modify(this.#fd, EPOLL.IN);
    }
  }

  #answer(request: Request, outcome: number): void {
    if (outcome === NO_REPLY) return;
    const length = Math.max(outcome, 0);
    writeOutHeader(request.view, request.reply, request.header, length - outcome, length);
    this.#send(request, request.gatherData(length));
  }

  #send(request: Request, entries: number): void {
    if (this.#closed || writev(this.#fd, request.output, entries) >= 0) return;
    const number = errno();
    // ENOENT: nobody waits for it any more. ENODEV: unmounted, as the next read will tell.
    // EFAULT: memory of a closed backend; the kernel has turned the reply into EIO.
    if (number === ERRNO.ENOENT || number === ERRNO.ENODEV || number === ERRNO.EFAULT) return;
    this.close(new SystemError({ syscall: "write", errno: number, subject: "/dev/fuse" }));
  }

  #take(): Request | undefined {
    const request = this.#free.pop();
    if (request !== undefined) return request;
    if (this.#requests === REQUESTS_MAX) return undefined;
    this.#requests++;
    return new Request();
  }

  #release(request: Request): void {
    if (this.#closed) return request.unmap();
    if (this.#free.length >= REQUESTS_KEPT) request.shrink();
    this.#free.push(request);
  }

  #pause(): void {
    this.#paused = true;
    this.#reactor.modify(this.#fd, 0);
  }

  /** The errno that a failed backend shows. Those that mean something else to the kernel are EIO. */
  #errnoOf(error: unknown): number {
    const number = (ERRNO as Record<string, number>)[errorCode(error)] ?? ERRNO.EIO;
    if (number !== ERRNO.EIO && !MISLEADING.has(number)) return number;
    this.#failures.failed(error);
    return ERRNO.EIO;
  }
}
