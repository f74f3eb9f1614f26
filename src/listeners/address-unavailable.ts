import { type Address, formatAddress } from '../core/config-key.js';
import { LogError } from '../core/errors.js';

/** The error of a listener whose address cannot be bound. */
export function addressUnavailable(what: string, listen: Address, cause: Error): LogError {
  return new LogError(
    'ADDRESS_UNAVAILABLE',
    `Cannot listen for ${what} on ${formatAddress(listen)}: ${cause.message}. ` +
      'If another process uses the port, stop it or choose another address.',
    { cause, metadata: { address: formatAddress(listen) } },
  );
}
