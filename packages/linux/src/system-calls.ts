/**
 * The system calls that Node does not offer, typed. The only file that knows the foreign function interface.
 * Layouts are those of 64-bit little-endian Linux (x86-64 and arm64 agree on every structure used here).
 */
import { constants } from "node:os";
import { getSystemErrorName } from "node:util";
import { MeshError } from "@fairway/runtime";
import { address, errno, type LibraryHandle, load } from "koffi";

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const O_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const CLONE_NEWNET = 0x40000000;
const NS_GET_NSTYPE = 0xb703;
const controlHeaderBytes = 16;
const messageHeaderBytes = 56;

type Calls = Record<
  | "setns"
  | "socket"
  | "setsockopt"
  | "getsockopt"
  | "bind"
  | "connect"
  | "listen"
  | "accept4"
  | "close"
  | "sendmsg"
  | "recvmsg"
  | "recvfrom"
  | "ioctl"
  | "ifIndex"
  | "pipe2",
  ReturnType<LibraryHandle["func"]>
>;

let loaded: Calls | undefined;

/** Bound on first use, once per thread: importing this package must work where the calls do not exist. */
function calls(): Calls {
  if (loaded === undefined) {
    const libc = load(null);
    loaded = {
      pipe2: libc.func("int pipe2(void *, int)"),
      setns: libc.func("int setns(int, int)"),
      socket: libc.func("int socket(int, int, int)"),
      setsockopt: libc.func("int setsockopt(int, int, int, const void *, uint32_t)"),
      getsockopt: libc.func("int getsockopt(int, int, int, void *, void *)"),
      bind: libc.func("int bind(int, const void *, uint32_t)"),
      connect: libc.func("int connect(int, const void *, uint32_t)"),
      listen: libc.func("int listen(int, int)"),
      accept4: libc.func("int accept4(int, void *, void *, int)"),
      close: libc.func("int close(int)"),
      sendmsg: libc.func("intptr_t sendmsg(int, const void *, int)"),
      recvmsg: libc.func("intptr_t recvmsg(int, void *, int)"),
      recvfrom: libc.func("intptr_t recvfrom(int, void *, size_t, int, void *, void *)"),
      ioctl: libc.func("int ioctl(int, unsigned long, ...)"),
      ifIndex: libc.func("uint32_t if_nametoindex(const char *)"),
    };
  }
  return loaded;
}

/** The error of a system call that failed: LINUX_SYSTEM_CALL_FAILED, with the call and the errno name in its details. */
function failure(call: string, number: number): MeshError<"LINUX_SYSTEM_CALL_FAILED"> {
  const name = number > 0 ? getSystemErrorName(-number) : "unknown";
  return new MeshError("LINUX_SYSTEM_CALL_FAILED", `${call} failed with ${name}${hintFor(name)}`, { details: { call, errno: name } });
}

function hintFor(name: string): string {
  switch (name) {
    case "EPERM":
      return ": the process lacks a capability (CAP_NET_ADMIN for marks and transparent sockets, CAP_SYS_ADMIN for namespaces, CAP_NET_RAW for captures)";
    case "EADDRINUSE":
      return ": another socket holds the address";
    case "EADDRNOTAVAIL":
      return ": the address does not exist in this network namespace";
    case "EMFILE":
    case "ENFILE":
      return ": the limit of open files is reached";
    default:
      return "";
  }
}

/** The errno name (`EPERM`) of a failed system call; undefined for other errors. */
export function errnoOf(thrown: unknown): string | undefined {
  if (!(thrown instanceof MeshError)) return undefined;
  const name = thrown.details["errno"];
  return typeof name === "string" ? name : undefined;
}

/** Runs a call that answers -1 on failure; repeats it when a signal interrupted it. */
function checked(call: string, run: () => unknown): number {
  for (;;) {
    const result = Number(run());
    if (result >= 0) return result;
    const number = errno();
    if (number !== constants.errno.EINTR) throw failure(call, number);
  }
}

/** As `checked`, but answers undefined when the descriptor is not ready. */
function unlessBlocked(call: string, run: () => unknown): number | undefined {
  for (;;) {
    const result = Number(run());
    if (result >= 0) return result;
    const number = errno();
    if (number === constants.errno.EAGAIN) return undefined;
    if (number !== constants.errno.EINTR) throw failure(call, number);
  }
}

/** Moves the calling thread to the network namespace `fd`. Only namespace.ts may call this. */
export function setNetworkNamespace(fd: number): void {
  checked("setns", () => calls().setns(fd, CLONE_NEWNET));
}

/** Whether `fd` is a network namespace (NS_GET_NSTYPE). */
export function isNetworkNamespace(fd: number): boolean {
  return Number(calls().ioctl(fd, NS_GET_NSTYPE)) === CLONE_NEWNET;
}

/** Both ends of a new pipe, closed in children that are not given them. */
export function openPipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const ends = Buffer.alloc(8);
  checked("pipe2", () => calls().pipe2(ends, O_CLOEXEC));
  return { readEnd: ends.readInt32LE(0), writeEnd: ends.readInt32LE(4) };
}

/** A non-blocking socket, closed on exec. */
export function openSocket(family: number, type: number, protocol = 0): number {
  return checked("socket", () => calls().socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

export function setOption(fd: number, level: number, option: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  checked("setsockopt", () => calls().setsockopt(fd, level, option, bytes, bytes.length));
}

/** Fills `into` and returns how many bytes the kernel wrote. */
export function getOption(fd: number, level: number, option: number, into: Buffer): number {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(into.length);
  checked("getsockopt", () => calls().getsockopt(fd, level, option, into, length));
  return length.readUInt32LE();
}

export function bindSocket(fd: number, socketAddress: Uint8Array): void {
  checked("bind", () => calls().bind(fd, socketAddress, socketAddress.length));
}

/** Connects at once: for local sockets, which never answer "in progress". */
export function connectSocket(fd: number, socketAddress: Uint8Array): void {
  checked("connect", () => calls().connect(fd, socketAddress, socketAddress.length));
}

export function listenSocket(fd: number, backlog: number): void {
  checked("listen", () => calls().listen(fd, backlog));
}

/** A waiting connection, or undefined when there is none. */
export function acceptSocket(fd: number): number | undefined {
  return unlessBlocked("accept", () => calls().accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

/** Closes; an error is not repeated, because Linux frees the descriptor in every case. */
export function closeDescriptor(fd: number): void {
  calls().close(fd);
}

/** The number of an interface in the calling thread's namespace; 0 when there is none. */
export function interfaceIndex(name: string): number {
  return Number(calls().ifIndex(name));
}

export interface ReceivedMessage {
  /** 0 at the end of the stream. */
  readonly length: number;
  /** Owned by the receiver, who must close them. */
  readonly descriptors: readonly number[];
  /** The message did not fit the buffer, or carried more descriptors than there was room for. */
  readonly truncated: boolean;
}

/** Sends one message with descriptors; false when the socket is full. Never raises SIGPIPE. */
export function sendMessage(fd: number, bytes: Uint8Array, descriptors: readonly number[]): boolean {
  const control = Buffer.alloc(controlSpace(descriptors.length));
  if (descriptors.length > 0) {
    control.writeBigUInt64LE(BigInt(controlHeaderBytes + 4 * descriptors.length), 0);
    control.writeInt32LE(SOL_SOCKET, 8);
    control.writeInt32LE(SCM_RIGHTS, 12);
    descriptors.forEach((descriptor, index) => void control.writeInt32LE(descriptor, controlHeaderBytes + 4 * index));
  }
  const vector = ioVector(bytes);
  const header = messageHeader(vector, control);
  return unlessBlocked("sendmsg", () => calls().sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL)) !== undefined;
}

/** Receives one message into `into`, with up to `descriptorLimit` descriptors (close-on-exec); undefined when none waits. */
export function receiveMessage(fd: number, into: Uint8Array, descriptorLimit: number): ReceivedMessage | undefined {
  const control = Buffer.alloc(controlSpace(descriptorLimit));
  const vector = ioVector(into);
  const header = messageHeader(vector, control);
  const length = unlessBlocked("recvmsg", () => calls().recvmsg(fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  if (length === undefined) return undefined;
  const flags = header.readInt32LE(48);
  const descriptors = descriptorsIn(control.subarray(0, Number(header.readBigUInt64LE(40))));
  return { length, descriptors, truncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0 };
}

/** Receives one packet and its link-level address; the length is that of the packet, even where the buffer is shorter. */
export function receivePacket(fd: number, into: Uint8Array, linkAddress: Buffer): number | undefined {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(linkAddress.length);
  return unlessBlocked("recvfrom", () => calls().recvfrom(fd, into, into.length, MSG_DONTWAIT | MSG_TRUNC, linkAddress, length));
}

/** CMSG_SPACE of `count` descriptors. */
function controlSpace(count: number): number {
  return count === 0 ? 0 : controlHeaderBytes + Math.ceil((4 * count) / 8) * 8;
}

function ioVector(bytes: Uint8Array): Buffer {
  const vector = Buffer.alloc(16);
  vector.writeBigUInt64LE(address(bytes), 0);
  vector.writeBigUInt64LE(BigInt(bytes.length), 8);
  return vector;
}

/** struct msghdr; the caller keeps `vector`, `control` and the bytes referenced until the call is over. */
function messageHeader(vector: Buffer, control: Buffer): Buffer {
  const header = Buffer.alloc(messageHeaderBytes);
  header.writeBigUInt64LE(address(vector), 16);
  header.writeBigUInt64LE(1n, 24);
  if (control.length > 0) header.writeBigUInt64LE(address(control), 32);
  header.writeBigUInt64LE(BigInt(control.length), 40);
  return header;
}

function descriptorsIn(control: Buffer): number[] {
  const found: number[] = [];
  for (let offset = 0; offset + controlHeaderBytes <= control.length; ) {
    const length = Number(control.readBigUInt64LE(offset));
    if (length < controlHeaderBytes || offset + length > control.length) break;
    if (control.readInt32LE(offset + 8) === SOL_SOCKET && control.readInt32LE(offset + 12) === SCM_RIGHTS) {
      for (let at = offset + controlHeaderBytes; at + 4 <= offset + length; at += 4) found.push(control.readInt32LE(at));
    }
    offset += Math.ceil(length / 8) * 8;
  }
  return found;
}

let trim: ReturnType<LibraryHandle["func"]> | undefined;

/** Hands memory that was freed back to the system, in every arena of the process. Does nothing where the C library is not glibc. */
export function trimAllocator(): void {
  try {
    trim ??= load(null).func("int malloc_trim(size_t)");
  } catch {
    return;
  }
  trim(0);
}
