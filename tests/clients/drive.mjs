// Sends requests to DataZone with the AWS SDK for JavaScript.
//
// Each line of the input is a request as JSON: {"operation": "GetDomain", "input": {...}}. Each line of the output is
// its answer: {"output": {...}, "attempts": 1} or {"error": {"name": ..., "message": ...}, "attempts": 1}.
// The endpoint, the Region and the credentials are in the environment variables of the SDK.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The SDK is installed in the working directory, not next to this file.
const require = createRequire(`${process.cwd()}/`);
const sdk = require("@aws-sdk/client-datazone");
const client = new sdk.DataZoneClient();

async function send({ operation, input }) {
  try {
    const { $metadata, ...output } = await client.send(new sdk[`${operation}Command`](input));
    return { output, attempts: $metadata.attempts };
  } catch (error) {
    return { error: { name: error.name, message: error.message }, attempts: error.$metadata?.attempts ?? null };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await send(JSON.parse(line))));
}
