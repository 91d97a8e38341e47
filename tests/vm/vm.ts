/**
 * Runs a command in a virtual machine that has this host's files and a kernel of its own, with the
 * modules that a test needs and the host may not have (nbd). Nothing that the command writes stays.
 *
 * The processor is emulated, so that it works inside virtual machines too; it is slow (about a
 * tenth), so only ratios of what is measured inside mean anything.
 *
 * @module
 */
import { type ArchiveEntry, writeCpio } from "./cpio.ts";
import { collectModules, fetchKernel, type LoadedModule, type Module } from "./kernel.ts";

const QEMU = "qemu-system-x86_64";
const BUSYBOX = "/bin/busybox";

const MODULES: Module[] = [
  { name: "virtio_pci" },
  { name: "9pnet_virtio" },
  { name: "9p" },
  { name: "overlay" },
  { name: "crc32c_generic" },
  { name: "ext4" },
  { name: "loop" },
  { name: "fuse" },
  { name: "nbd", parameters: "nbds_max=4" },
  { name: "sch_netem" },
];

/** How {@linkcode runInVm} runs a command. */
export interface VmOptions {
  /** Seconds after which the machine is switched off. */
  timeout: number;
  /** The working directory; this process's unless told. */
  directory?: string;
  /** Variables beside PATH, HOME and those of Deno's caches. */
  environment?: Record<string, string>;
  /** MiB of memory; 6144 unless told (the host only gives what is used). */
  memory?: number;
  /** Processors; 2 unless told. */
  processors?: number;
}

/** How a command ended. */
export interface VmResult {
  /** Its exit code; 125 where the machine did not get as far as running it. */
  code: number;
  /** What it wrote to standard output and standard error. */
  stdout: string;
  /** The kernel's messages. */
  console: string;
}

/** Why no machine can run here, with what to do; undefined where one can. */
export async function whyNoVm(): Promise<string | undefined> {
  if (Deno.build.arch !== "x86_64") return "the virtual machine's kernel is for x86_64 only";
  try {
    await Deno.stat(BUSYBOX);
    await new Deno.Command(QEMU, { args: ["-version"], stdout: "null" }).output();
  } catch {
    return "qemu or busybox is missing; apt-get install qemu-system-x86 busybox-static";
  }
  try {
    await fetchKernel();
  } catch (error) {
    return `there is no kernel to boot: ${(error as Error).message}`;
  }
  return undefined;
}

/**
 * Boots a machine, runs one command in it as root, and switches it off.
 *
 * @throws {Error} where the machine did not end in time or ended without a result.
 */
export async function runInVm(command: string[], options: VmOptions): Promise<VmResult> {
  const folder = await Deno.makeTempDir({ prefix: "telemap-vm-" });
  try {
    const kernel = await fetchKernel();
    const modules = await collectModules(kernel, MODULES);
    const archive = initramfs(modules, await readInit(), script(command, options));
    await Deno.writeFile(`${folder}/initramfs`, archive);
    return await boot(kernel.image, folder, options);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function boot(image: string, folder: string, options: VmOptions): Promise<VmResult> {
  const marker = `telemap-vm-${crypto.randomUUID()}`;
  const qemu = qemuArguments(image, folder, marker, options);
  // timeout(1) ends the machine even where this process is killed before it could.
  const child = new Deno.Command("timeout", {
    args: ["--kill-after=5", `${options.timeout}`, QEMU, ...qemu],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const { stdout, code } = await child.output();
  const console = await Deno.readTextFile(`${folder}/console`).catch(() => "");
  const text = new TextDecoder().decode(stdout);
  const [output, ending] = text.split(`\n${marker} `);
  if (ending !== undefined) return { code: parseInt(ending), stdout: output!, console };
  const why = code === 124 ? `did not end within ${options.timeout} s` : "ended without a result";
  throw new Error(`The virtual machine ${why}\n${console}\n${text}`);
}

function qemuArguments(
  image: string,
  folder: string,
  marker: string,
  options: VmOptions,
): string[] {
  const { memory = 6144, processors = 2 } = options;
  const share = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap";
  return [
    ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", `${processors}`, "-m", `${memory}`],
    ["-nodefaults", "-display", "none", "-no-reboot"],
    ["-serial", `file:${folder}/console`, "-serial", "stdio", "-monitor", "none"],
    ["-virtfs", share],
    ["-kernel", image, "-initrd", `${folder}/initramfs`],
    ["-append", `console=ttyS0 quiet panic=-1 mitigations=off MARKER=${marker}`],
  ].flat();
}

function initramfs(modules: LoadedModule[], init: Uint8Array, script: string): Uint8Array {
  const order = modules.map(({ name, parameters = "" }) => `${name} ${parameters}\n`).join("");
  const folders = ["bin", "dev", "proc", "modules", "lower", "writable", "overlay"];
  const encoder = new TextEncoder();
  const entries: ArchiveEntry[] = [
    ...folders.map((path) => ({ path, mode: 0o755 })),
    { path: "bin/busybox", mode: 0o755, data: Deno.readFileSync(BUSYBOX) },
    { path: "init", mode: 0o755, data: init },
    { path: "command", mode: 0o644, data: encoder.encode(script) },
    { path: "modules/order", mode: 0o644, data: encoder.encode(order) },
    ...modules.map(({ name, data }) => ({ path: `modules/${name}.ko`, mode: 0o644, data })),
  ];
  return writeCpio(entries);
}

async function readInit(): Promise<Uint8Array> {
  return await Deno.readFile(new URL("init.sh", import.meta.url));
}

/** The shell script that runs a command as it would run here. */
function script(command: string[], options: VmOptions): string {
  const environment: Record<string, string> = { TERM: "dumb", NO_COLOR: "1" };
  for (const name of ["PATH", "HOME", "DENO_DIR", "XDG_CACHE_HOME"]) {
    const value = Deno.env.get(name);
    if (value !== undefined) environment[name] = value;
  }
  Object.assign(environment, options.environment);
  const exports = Object.entries(environment).map(([name, value]) =>
    `export ${name}=${quote(value)}`
  );
  const directory = options.directory ?? Deno.cwd();
  return [...exports, `cd ${quote(directory)} || exit 125`, `exec ${command.map(quote).join(" ")}`]
    .join("\n") + "\n";
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
