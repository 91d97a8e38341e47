/**
 * Netlink sockets: requests to a generic family, and what the kernel announces about devices.
 *
 * @module
 */
import { EPOLL, Epoll } from "./epoll.ts";
import { checked, ERRNO, errno, SystemError, throwErrno } from "./errno.ts";
import { close } from "./file.ts";
import { libc } from "./libc.ts";
import {
  type Attribute,
  type Attributes,
  encodeRequest,
  GENL_CTRL,
  type Message,
  NETLINK,
  NLM_F,
  parseMessages,
  unsigned,
} from "./netlink.ts";
import { bind, MSG, setOption, SOCK, socket, SOL } from "./socket.ts";
import { AF, netlinkAddress } from "./socket_address.ts";
import { parseUevent, type Uevent } from "./uevent.ts";

const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const UEVENT_KERNEL_GROUP = 1;
const DATAGRAM_MAX = 65536;
const ANSWER_TIMEOUT_MS = 10_000;

const symbols = libc({
  // ssize_t send(int sockfd, const void *buf, size_t len, int flags); counts stay under 2^31 here
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // the same, off this thread: the kernel does the work of a request inside the call
  sendAsync: {
    name: "send",
    parameters: ["i32", "buffer", "usize", "i32"],
    result: "i32",
    nonblocking: true,
  },
  // ssize_t recv(int sockfd, void *buf, size_t len, int flags)
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
});

/** A netlink socket that talks to the kernel and listens to multicast groups. */
class NetlinkSocket implements Disposable {
  readonly #fd: number;
  readonly #epoll = new Epoll(1);
  readonly #buffer = new Uint8Array(DATAGRAM_MAX);

  constructor(protocol: number, groups = 0) {
    this.#fd = socket(AF.NETLINK, SOCK.RAW, protocol);
    try {
      bind(this.#fd, netlinkAddress(groups));
      this.#epoll.add(this.#fd, EPOLL.IN);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  setOption(option: number): void {
    setOption(this.#fd, SOL.NETLINK, option, 1);
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    const result = symbols().send(this.#fd, offHeap(bytes), BigInt(bytes.length), 0);
    checked(result, "send", "a netlink socket");
  }

  /** Sends off this thread; false where the kernel did not take it (errno is lost). */
  async sendAsync(bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const result = await symbols().sendAsync(
      this.#fd,
      offHeap(bytes),
      BigInt(bytes.length),
      0,
    );
    return result === bytes.length;
  }

  /** A datagram that has come, valid until the next call; undefined where there is none. */
  receive(): Uint8Array<ArrayBuffer> | undefined {
    const size = BigInt(DATAGRAM_MAX);
    const length = symbols().recv(this.#fd, this.#buffer, size, MSG.DONTWAIT);
    if (length >= 0) return this.#buffer.subarray(0, length);
    if (errno() === ERRNO.EAGAIN) return undefined;
    throwErrno("receive", "a netlink socket");
  }

  /** Waits for a datagram; false where none came within `timeout` ms. */
  async wait(timeout: number): Promise<boolean> {
    return await this.#epoll.waitAsync(Math.ceil(timeout)) > 0;
  }

  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
    close(this.#fd);
  }
}

/** A family of generic netlink, found by its name. One request at a time. */
export class GenericNetlink implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK.GENERIC);
  readonly #name: string;
  readonly #version: number;
  readonly #family: number;
  #sequence = 0;

  /** Looks the family up. Throws {@linkcode SystemError}, ENOENT where the kernel has none of it. */
  constructor(name: string, version: number) {
    this.#name = name;
    this.#version = version;
    try {
      this.#socket.setOption(NETLINK_CAP_ACK);
      this.#socket.setOption(NETLINK_EXT_ACK);
      this.#family = this.#lookUp();
    } catch (error) {
      this.#socket[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Sends a command and answers with the attributes of each answer. The kernel works on a thread of
   * its own meanwhile, so that this isolate may serve what the command waits for.
   *
   * @throws {SystemError} with the kernel's errno and reason; ETIMEDOUT where it does not answer.
   */
  async request(command: number, attributes: Attribute[]): Promise<Attributes[]> {
    const sequence = ++this.#sequence;
    const what = `send ${this.#name} command ${command}`;
    const sent = await this.#socket.sendAsync(encodeRequest({
      family: this.#family,
      flags: NLM_F.REQUEST | NLM_F.ACK,
      sequence,
      command,
      version: this.#version,
      attributes,
    }));
    if (!sent) throw new SystemError({ syscall: what, errno: ERRNO.EIO, subject: "netlink" });
    const answers: Attributes[] = [];
    while (!this.#take(sequence, answers, what)) {
      if (await this.#socket.wait(ANSWER_TIMEOUT_MS)) continue;
      throw new SystemError({ syscall: what, errno: ERRNO.ETIMEDOUT, subject: "netlink" });
    }
    return answers;
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #lookUp(): number {
    const sequence = ++this.#sequence;
    this.#socket.send(encodeRequest({
      family: GENL_CTRL.ID,
      flags: NLM_F.REQUEST | NLM_F.ACK,
      sequence,
      command: GENL_CTRL.CMD_GETFAMILY,
      version: GENL_CTRL.VERSION,
      attributes: [{ type: GENL_CTRL.ATTR_FAMILY_NAME, value: { string: this.#name } }],
    }));
    const answers: Attributes[] = [];
    // The kernel answers inside the send, so that nothing has to be waited for.
    this.#take(sequence, answers, `find netlink family ${this.#name}`);
    return unsigned(answers[0]?.get(GENL_CTRL.ATTR_FAMILY_ID));
  }

  /** Adds what has come of a request's answers; true once the last is there. */
  #take(sequence: number, answers: Attributes[], what: string): boolean {
    for (let datagram; (datagram = this.#socket.receive()) !== undefined;) {
      for (const message of parseMessages(datagram.slice())) {
        if (message.sequence !== sequence) continue;
        if (message.kind === "generic") answers.push(message.attributes);
        else if (isEnd(message, what)) return true;
      }
    }
    return false;
  }
}

/** What the kernel announces about devices that come, change and go. */
export class UeventSocket implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK.KOBJECT_UEVENT, UEVENT_KERNEL_GROUP);

  /**
   * The next event from now on, or since the last call, that fits; undefined where none came until
   * `deadline` (ms of `performance.now()`).
   */
  async next(fits: (event: Uevent) => boolean, deadline: number): Promise<Uevent | undefined> {
    while (true) {
      for (let datagram; (datagram = this.#socket.receive()) !== undefined;) {
        const event = parseUevent(datagram);
        if (event !== undefined && fits(event)) return event;
      }
      const left = deadline - performance.now();
      if (left <= 0 || !await this.#socket.wait(left)) return undefined;
    }
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** Whether a message ends a request; throws where that failed. */
function isEnd(message: Message, what: string): boolean {
  if (message.kind !== "ended" || message.errno === 0) return message.kind !== "generic";
  throw new SystemError({
    syscall: what,
    errno: message.errno,
    subject: "netlink",
    hint: message.text,
  });
}

/** The bytes where C may read them while this thread goes on: not on the moving V8 heap. */
function offHeap(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length > 64) return bytes;
  const copy = new Uint8Array(128);
  copy.set(bytes);
  return copy;
}
