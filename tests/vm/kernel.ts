/**
 * A kernel with modules for the virtual machine: Debian's package, unpacked into a cache folder and
 * never installed; and the order in which its modules go in.
 *
 * @module
 */

/** Debian's name for its current kernel on this architecture. */
const KERNEL_PACKAGE = "linux-image-amd64";

/** An unpacked kernel package. */
export interface Kernel {
  /** The path of the bootable image. */
  image: string;
  /** The folder that holds `kernel/…/*.ko`. */
  modules: string;
}

/** A module and what it takes, e.g. `{ name: "nbd", parameters: "nbds_max=16" }`. */
export interface Module {
  /** Its name, with `_` for `-`. */
  name: string;
  /** Parameters as insmod takes them. */
  parameters?: string;
}

/** A module that is ready to be inserted. */
export interface LoadedModule extends Module {
  /** The content of its `.ko` file. */
  data: Uint8Array;
}

/** Finds the kernel in the cache, or downloads it there. Throws an `Error` where it cannot. */
export async function fetchKernel(): Promise<Kernel> {
  const home = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  const cache = `${home}/telemap-vm`;
  await Deno.mkdir(cache, { recursive: true });
  return await findKernel(cache) ?? await download(cache);
}

/** The modules asked for and all that these need, each after what it needs. */
export async function collectModules(kernel: Kernel, wanted: Module[]): Promise<LoadedModule[]> {
  const paths = await modulePaths(`${kernel.modules}/kernel`);
  const collected = new Map<string, LoadedModule>();
  const collect = async (module: Module) => {
    if (collected.has(module.name)) return;
    const path = paths.get(module.name);
    if (path === undefined) {
      throw new Error(`Cannot find module ${module.name} in ${kernel.modules}`);
    }
    const data = await Deno.readFile(path);
    for (const name of dependencies(data)) {
      await collect(wanted.find((other) => other.name === name) ?? { name });
    }
    collected.set(module.name, { ...module, data });
  };
  for (const module of wanted) await collect(module);
  return [...collected.values()];
}

/** The names after `depends=` in the section .modinfo of a module. */
export function dependencies(module: Uint8Array): string[] {
  const text = new TextDecoder("latin1").decode(module);
  const names = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? "";
  return names === "" ? [] : names.replaceAll("-", "_").split(",");
}

async function findKernel(cache: string): Promise<Kernel | undefined> {
  const packages = (await Array.fromAsync(Deno.readDir(cache))).map((entry) => entry.name);
  for (const name of packages.filter((name) => name.startsWith("linux-image-")).sort().reverse()) {
    const version = name.replace("linux-image-", "");
    const root = `${cache}/${name}`;
    return { image: `${root}/boot/vmlinuz-${version}`, modules: `${root}/lib/modules/${version}` };
  }
  return undefined;
}

async function download(cache: string): Promise<Kernel> {
  const depends = await output("apt-cache", ["depends", KERNEL_PACKAGE], cache);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) throw new Error(`Cannot find what ${KERNEL_PACKAGE} stands for`);
  const folder = await Deno.makeTempDir({ dir: cache, prefix: "unpack-" });
  try {
    await output("apt-get", ["-q", "download", name], folder);
    const archive = (await Array.fromAsync(Deno.readDir(folder)))[0]?.name ?? "";
    await output("dpkg-deb", ["-x", archive, "root"], folder);
    await Deno.rename(`${folder}/root`, `${cache}/${name}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const kernel = await findKernel(cache);
  if (kernel === undefined) throw new Error(`Cannot find a kernel in ${name}`);
  return kernel;
}

async function modulePaths(folder: string): Promise<Map<string, string>> {
  const paths = new Map<string, string>();
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) {
      for (const [name, inner] of await modulePaths(path)) paths.set(name, inner);
    } else if (entry.name.endsWith(".ko")) {
      paths.set(entry.name.slice(0, -".ko".length).replaceAll("-", "_"), path);
    }
  }
  return paths;
}

async function output(command: string, args: string[], cwd: string): Promise<string> {
  const result = await new Deno.Command(command, { args, cwd, stderr: "piped" }).output();
  const text = new TextDecoder();
  if (result.success) return text.decode(result.stdout);
  throw new Error(`Cannot run ${command} ${args.join(" ")}: ${text.decode(result.stderr).trim()}`);
}
