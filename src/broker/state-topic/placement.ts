/** The partition that keeps a name: Java's hash of a string, as Kafka has it. */
export function placementOf(name: string, partitionCount: number): number {
  let hash = 0;
  for (let i = 0; i < name.length; i++) hash = (Math.imul(31, hash) + name.charCodeAt(i)) | 0;
  // |-2^31| does not fit 32 bits.
  return (hash === -(2 ** 31) ? 0 : Math.abs(hash)) % partitionCount;
}
