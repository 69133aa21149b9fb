/** A network namespace held open by a descriptor. */
export interface NetworkNamespace extends Disposable {
  readonly fd: number;
  /** What makes two descriptors the same namespace. */
  readonly inode: bigint;
  readonly device: bigint;
}
