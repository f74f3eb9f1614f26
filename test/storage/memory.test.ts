import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { describeConformance } from './conformance.js';

describeConformance('memory engine', async () => ({ engine: openMemoryEngine(), reopen: undefined }));
