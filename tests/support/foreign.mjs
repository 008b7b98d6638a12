// Sends the transfers given as JSON on stdin, one after another, with Node's fetch or http.request over one connection.
// Prints as JSON the responses and how many connections were opened.
import diagnostics from "node:diagnostics_channel";
import http from "node:http";
import { buffer, json } from "node:stream/consumers";

const { url, library, transfers } = await json(process.stdin);
let numConnections = 0;
diagnostics.subscribe("undici:client:connected", () => numConnections++);

async function* inParts(body, size = 4096) {
  for (let start = 0; start < body.length; start += size) yield body.subarray(start, start + size);
}

async function withFetch(body, { chunked, type }) {
  const content = chunked ? { body: ReadableStream.from(inParts(body)), duplex: "half" } : { body };
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": type }, ...content });
  return { status: response.status, body: Buffer.from(await response.arrayBuffer()) };
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
async function withRequest(body, { chunked, type }) {
  const headers = { "Content-Type": type, ...(chunked ? {} : { "Content-Length": body.length }) };
  const request = http.request(url, { method: "POST", agent, headers });
  const answered = new Promise((resolve, reject) => request.on("response", resolve).on("error", reject));
  if (chunked) for await (const part of inParts(body)) request.write(part);
  request.end(chunked ? undefined : body);
  const response = await answered;
  if (!request.reusedSocket) numConnections++;
  return { status: response.statusCode, body: await buffer(response) };
}

const send = library === "fetch" ? withFetch : withRequest;
const responses = [];
for (const transfer of transfers) {
  const { status, body } = await send(Buffer.from(transfer.body, "base64"), transfer);
  responses.push({ status, body: body.toString("base64") });
}
agent.destroy();
console.log(JSON.stringify({ responses, numConnections }));
// fetch keeps its connection, and with it the process, alive.
process.exit(0);
