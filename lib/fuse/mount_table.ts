/**
 * What is mounted, as this process sees it (proc(5), /proc/self/mountinfo).
 *
 * @module
 */
import { readKernelText } from "../../ffi/file.ts";

/** One line of the table. */
export interface MountEntry {
  /** Device number of the file system, `MAJOR:MINOR`. */
  device: string;
  /** Where it is mounted. */
  mountPoint: string;
  /** Its type, e.g. `fuse.telemap`. */
  type: string;
  /** The device that it was mounted from; of FUSE file systems any text. */
  source: string;
}

/** Reads the table. It waits for no file system. */
export function readMountTable(): MountEntry[] {
  return parseMountTable(readKernelText("/proc/self/mountinfo"));
}

/** The table in its text; later mounts come later. Lines of another form are left out. */
export function parseMountTable(text: string): MountEntry[] {
  return text.split("\n").flatMap((line) => {
    // id, parent, device, root, mount point, options, any number of tags, "-", type, source, options
    const fields = line.split(" ");
    const separator = fields.indexOf("-", 6);
    const [device, mountPoint] = [fields[2], fields[4]];
    const [type, source] = [fields[separator + 1], fields[separator + 2]];
    if (separator < 0 || device === undefined || mountPoint === undefined) return [];
    if (type === undefined || source === undefined) return [];
    return [{ device, mountPoint: unescape(mountPoint), type, source: unescape(source) }];
  });
}

/** Blanks, newlines and backslashes are written as three octal digits. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8)));
}
