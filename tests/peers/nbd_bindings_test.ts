/** libnbd's bindings for Python on the NBD server: requests that its tools never send. */
import { openLibc } from "../../ffi/libc.ts";
import { PYTHON, requires } from "../requires.ts";
import { run } from "./command.ts";
import { serveAt, test } from "./served_folder.ts";

openLibc();

const libnbd = requires("python3:nbd");

/** Runs Python with libnbd's bindings; `h` is a handle that is not connected, `url` the server. */
async function python(url: string, script: string): Promise<void> {
  const preamble = [
    "import nbd, os, sys",
    "url = sys.argv[1]",
    "def error(action, *args):",
    "    try: action(*args)",
    "    except nbd.Error as failure: return failure.errno",
    "h = nbd.NBD()",
    "h.set_strict_mode(0)",
  ];
  const lines = script.split("\n").map((line) => line.replace(/^ {4}/, ""));
  await run(PYTHON, "-c", [...preamble, ...lines].join("\n"), url);
}

test(
  "libnbd's bindings, unchecked, are answered as the protocol has it",
  libnbd,
  async (folder) => {
    await using server = await serveAt(folder, "memory:16777333");
    for (const structured of ["True", "False"]) {
      await python(
        server.url,
        `
    h.set_request_structured_replies(${structured})
    h.add_meta_context("base:allocation")
    h.connect_uri(url)
    size = h.get_size()
    assert size == 16777333
    h.pwrite(b"x" * 5, size - 5)
    assert h.pread(5, size - 5) == b"x" * 5
    assert error(h.pread, 6, size - 5) == "EINVAL"
    assert error(h.pread, 1, 2**63) == "EINVAL"
    assert error(h.pwrite, b"x" * 6, size - 5) == "ENOSPC"
    assert error(h.zero, 6, size - 5) == "ENOSPC"
    assert error(h.trim, 6, size - 5) == "EINVAL"
    assert error(h.cache, 6, size - 5) == "EINVAL"
    assert error(h.pwrite, b"x", 0, 16) == "EINVAL"
    assert error(h.pread, 9, 0, 2) == "EINVAL"
    assert error(h.flush, 2) == "EINVAL"
    assert error(h.trim, 9, 0, 0x100) == "EINVAL"
    assert error(h.pread, 32 * 1024 * 1024 + 1, 0) == "EINVAL"
    assert error(h.pwrite, bytearray(33 * 1024 * 1024), 0) == "EINVAL"
    for length, offset in (1, 1), (511, 513), (4097, 4095), (3000001, 7):
        data = os.urandom(length)
        h.pwrite(data, offset, nbd.CMD_FLAG_FUA)
        assert h.pread(length, offset) == data
    h.pread(0, 0)
    h.pwrite(b"", 0)
    h.zero(0, 0)
    h.trim(0, 0)
    h.zero(2**24, 0, nbd.CMD_FLAG_NO_HOLE)
    assert h.pread(2**24, 0) == bytes(2**24)
    h.flush()
    assert h.pread(5, size - 5) == b"x" * 5
    h.shutdown()`,
      );
    }
  },
);

test(
  "libnbd's bindings read status, chunks and options",
  libnbd,
  async (folder) => {
    const options = { name: "disk", description: "text" };
    await using server = await serveAt(folder, "memory:64MiB", options);
    await python(
      server.url,
      `
    h.add_meta_context("base:allocation")
    h.set_opt_mode(True)
    h.connect_uri(url)
    names = []
    h.opt_list(lambda name, description: names.append((name, description)) or 0)
    assert names == [("disk", "text")], names
    contexts = []
    h.opt_list_meta_context(lambda name: contexts.append(name) or 0)
    assert contexts == ["base:allocation"]
    h.set_export_name("none")
    assert error(h.opt_info) == "ENOENT"
    h.set_export_name("x" * 4096)
    assert error(h.opt_info) == "ENOENT"
    h.set_export_name("disk")
    h.opt_info()
    assert h.get_size() == 2**26
    h.opt_go()
    h.pwrite(b"y" * 65536, 2**20)
    entries = []
    h.block_status(2**26, 0, lambda context, offset, found, err: entries.extend(found) or 0)
    assert entries == [2**20, 3, 65536, 0, 2**26 - 2**20 - 65536, 3], entries
    entries = []
    h.block_status(2**26, 0, lambda context, offset, found, err: entries.extend(found) or 0, nbd.CMD_FLAG_REQ_ONE)
    assert entries == [2**20, 3], entries
    chunks = []
    def chunk(data, offset, status, err):
        chunks.append((offset, len(data), status))
        return 0
    h.pread_structured(65536, 2**20, chunk, nbd.CMD_FLAG_DF)
    assert chunks == [(2**20, 65536, nbd.READ_DATA)], chunks
    h.shutdown()
    other = nbd.NBD()
    other.set_opt_mode(True)
    other.connect_uri(url)
    other.opt_abort()`,
    );
  },
);

test("libnbd's bindings, as old as can be, are served", libnbd, async (folder) => {
  await using server = await serveAt(folder, "memory:16MiB");
  await python(
    server.url,
    `
    h.set_handshake_flags(0)
    h.connect_uri(url)
    assert h.get_protocol() == "newstyle", h.get_protocol()
    assert h.get_size() == 2**24
    h.pwrite(b"old", 3)
    assert h.pread(3, 3) == b"old"
    h.shutdown()`,
  );
});

test(
  "libnbd's bindings have thousands of requests in flight",
  libnbd,
  async (folder) => {
    await using server = await serveAt(folder, `dir:${folder}/region?size=64MiB&chunk=64KiB`);
    await python(
      server.url,
      `
    import random
    random.seed(7)
    handles = []
    for _ in range(4):
        one = nbd.NBD()
        one.connect_uri(url)
        handles.append(one)
    expected = {}
    for index in range(4000):
        data = bytes([index % 251]) * 4096
        expected[index] = data
        handles[index % 4].aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), index * 8192)
    for one in handles:
        while one.aio_in_flight() > 0: one.poll(-1)
    buffers = {}
    order = list(range(4000))
    random.shuffle(order)
    for index in order:
        buffers[index] = nbd.Buffer(4096)
        handles[index % 4].aio_pread(buffers[index], index * 8192)
    for one in handles:
        while one.aio_in_flight() > 0: one.poll(-1)
    for index in range(4000):
        assert buffers[index].to_bytearray() == expected[index], index
    for one in handles: one.shutdown()`,
    );
  },
);
