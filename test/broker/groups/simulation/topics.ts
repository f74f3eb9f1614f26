import type { GroupPartition, GroupTopic, Subscription, TopicView } from '../../../../src/broker/groups/group-types.js';
import type { TopicId } from '../../../../src/core/types.js';

/** A view of these topics. Patterns are of the form `prefix*`. */
export function viewOf(topics: readonly GroupTopic[]): TopicView {
  const byName = new Map(topics.map((topic) => [topic.name, topic]));
  return {
    get: (name) => byName.get(name),
    matching: (pattern) => new Set([...byName.keys()].filter((name) => name.startsWith(pattern.slice(0, -1)))),
  };
}

export function topicIdOf(number: number): TopicId {
  return `00000000-0000-4000-8000-${String(number).padStart(12, '0')}` as TopicId;
}

export function namesOf({ topics, pattern }: Subscription, view: TopicView): ReadonlySet<string> {
  return pattern === undefined ? new Set(topics) : view.matching(pattern);
}

/** The topics of a simulated broker, which come, grow and go. */
export class ModelTopics {
  view: TopicView = viewOf([]);
  readonly #topics = new Map<string, GroupTopic>();
  #ids = 0;

  get all(): GroupTopic[] {
    return [...this.#topics.values()];
  }

  /** Creates it, or puts another in its place. */
  create(name: string, partitionCount: number): void {
    this.#set({ name, id: topicIdOf(this.#ids++), partitionCount });
  }

  grow(topic: GroupTopic, by: number): void {
    this.#set({ ...topic, partitionCount: topic.partitionCount + by });
  }

  delete(name: string): void {
    this.#topics.delete(name);
    this.view = viewOf(this.all);
  }

  has({ topic, topicId, partition }: GroupPartition): boolean {
    const found = this.#topics.get(topic);
    return found !== undefined && found.id === topicId && partition < found.partitionCount;
  }

  #set(topic: GroupTopic): void {
    this.#topics.set(topic.name, topic);
    this.view = viewOf(this.all);
  }
}
