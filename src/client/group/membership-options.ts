/** What a membership is made with. */
import type { JoinGroupRequest } from '../../rpc/group-messages.js';
import type { Channel } from '../channel.js';
import type { CommitterContext } from './committer.js';

export interface MembershipOptions {
  readonly groupId: string;
  /** Topics by name, or every topic whose whole name matches a pattern in RE2's syntax. */
  readonly subscription: { readonly topics: readonly string[] } | { readonly pattern: string };
  /** Of a static member. */
  readonly instanceId?: string | undefined;
  /** Default: what most members want. */
  readonly assignor?: 'uniform' | 'range' | undefined;
  /** In ms; 0: the broker's default. */
  readonly sessionTimeoutMs: number;
  /**
   * In ms, above 0. The listener has less to let partitions go: a tenth is kept for the way to the broker, and up to a
   * quarter for not knowing when the broker decided.
   */
  readonly rebalanceTimeoutMs: number;
}

export interface MembershipContext extends CommitterContext {
  readonly channel: Pick<Channel, 'unary'>;
  readonly clientId: string;
}

export function joinRequest(options: MembershipOptions, clientId: string, memberId: string): JoinGroupRequest {
  const { groupId, instanceId = '', assignor = '', subscription, sessionTimeoutMs, rebalanceTimeoutMs } = options;
  const wanted =
    'pattern' in subscription
      ? { topics: [], topicPattern: subscription.pattern }
      : { topics: [...subscription.topics], topicPattern: '' };
  return {
    groupId,
    memberId,
    instanceId,
    clientId,
    subscription: wanted,
    assignor,
    sessionTimeoutMs,
    rebalanceTimeoutMs,
  };
}
