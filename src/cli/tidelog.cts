#!/usr/bin/env node
// The launcher. CommonJS, and in a form that old Node.js can parse, so that it can say what is missing; everything else
// begins with the import at the end.
{
  const oldestMajor = 20;
  if (Number.parseInt(process.versions.node, 10) < oldestMajor) {
    process.stderr.write(
      `tidelog: Node.js ${process.versions.node} is too old: install version ${oldestMajor} or newer.\n`,
    );
    process.exit(1);
  }
  // The thread pool takes its size when it is first used. Each data sync in flight occupies a thread: with 16 instead of
  // 4, durable acknowledgements on many partitions are twice as fast.
  process.env.UV_THREADPOOL_SIZE ??= '16';
  // gRPC would print lines of its own besides our errors, which say the same.
  process.env.GRPC_VERBOSITY ??= 'NONE';
  import('./main.js').then(
    (main) => main.runProcess(),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      process.stderr.write(`tidelog: cannot start: ${message.split('\n', 1)[0]}. Install the package anew.\n`);
      process.exit(1);
    },
  );
}
