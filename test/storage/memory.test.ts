import { memoryBlobs, memoryJournal } from "../../src/storage/memory.ts";
import { describeBlobStore } from "../contracts/blob-store.ts";
import { describeJournal } from "../contracts/journal.ts";

describeJournal("memory", async () => {
  const journal = memoryJournal();
  return { journal, reopen: async () => journal };
});

describeBlobStore("memory", async () => {
  const blobs = memoryBlobs();
  return { blobs, reopen: async () => blobs };
});
