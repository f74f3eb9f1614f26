/** What a broker says of itself over HTTP. */
export interface Health {
  readonly status: string;
  readonly failures: readonly { readonly topic: string; readonly partition: number; readonly reason: string }[];
}

/** @param address of its HTTP listener, `host:port` */
export async function health(address: string): Promise<Health> {
  const response = await fetch(`http://${address}/healthz`);
  // What its own documentation says of it; tests look at what is there.
  return (await response.json()) as Health;
}
