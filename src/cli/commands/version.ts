/** `tidelog version` */
import type { Command } from 'commander';
import { VERSION } from '../../version.js';
import type { CommandContext } from '../program.js';

export function configure(command: Command, { output }: CommandContext): void {
  command.action(() => output.line(VERSION));
}
