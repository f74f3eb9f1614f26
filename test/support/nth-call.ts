/** Faults by counting: the N-th call that can fail in a certain way does so, once or from then on. */
import type { FileSystem } from '../../src/storage/local/fs.js';
import { type FaultRule, type FileCall, SHORT_WRITE } from './faulty-file-system.js';

/** What goes wrong: an errno, or a write that takes only part of what it is given. */
export type NthFault = 'EIO' | 'ENOSPC' | 'EMFILE' | typeof SHORT_WRITE;

export const NTH_FAULTS: readonly NthFault[] = ['EIO', 'ENOSPC', 'EMFILE', SHORT_WRITE];

/** Whether a fault is over after one call. */
export type Lasting = 'once' | 'from then on';

type CallName = keyof FileSystem;

const NEEDS_HANDLE: readonly CallName[] = ['openSync', 'syncDirectory', 'readdir', 'removeTree', 'tryLock'];
const NEEDS_ROOM: readonly CallName[] = ['writevSync', 'fdatasync', 'syncDirectory', 'mkdir', 'rename', 'renameSync'];

/** Whether the call can fail in that way on a real disk. */
function canFail({ name, mode }: FileCall, fault: NthFault): boolean {
  if (fault === 'EIO') return true;
  if (fault === 'EMFILE') return NEEDS_HANDLE.includes(name);
  if (fault === SHORT_WRITE) return name === 'writevSync';
  return NEEDS_ROOM.includes(name) || (name === 'openSync' && mode === 'create') || name === 'tryLock';
}

/** A plan that `FaultyFileSystem.rule` follows. */
export class NthCall {
  readonly fault: NthFault;
  readonly lasting: Lasting;
  /** The calls that failed. */
  readonly failed: FileCall[] = [];
  readonly #at: number;
  #count = 0;
  #over = false;

  /** @param at from 1, of the calls that can fail in this way */
  constructor(fault: NthFault, lasting: Lasting, at: number) {
    this.fault = fault;
    this.lasting = lasting;
    this.#at = at;
  }

  readonly rule: FaultRule = (call) => {
    if (this.#over || !canFail(call, this.fault)) return undefined;
    this.#count++;
    if (this.lasting === 'once' ? this.#count !== this.#at : this.#count < this.#at) return undefined;
    this.failed.push(call);
    return this.fault;
  };

  /** Nothing fails any more: there is room again, or a handle, or another disk. */
  end(): void {
    this.#over = true;
  }

  toString(): string {
    const where = this.failed.map(({ name, path }) => `${name} ${path}`).slice(0, 3);
    return `${this.fault} ${this.lasting} at call ${this.#at} (${where.join(', ')})`;
  }
}
