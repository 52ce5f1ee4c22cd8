// Calls the service Echo through a gateway, in the binary and in the text format of gRPC-Web, and prints the results of
// each format as a line of JSON.
//
//   node client.mjs FOLDER URL
//
// FOLDER has the installed packages. The messages are described here, as generated code would describe them.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseUrl] = process.argv.slice(2);
const resolve = createRequire(pathToFileURL(`${folder}/package.json`)).resolve;
const load = (name) => import(pathToFileURL(resolve(name)));
const { MessageType, ScalarType } = await load("@protobuf-ts/runtime");
const { ServiceType } = await load("@protobuf-ts/runtime-rpc");
const { GrpcWebFetchTransport } = await load("@protobuf-ts/grpcweb-transport");

const message = (name) => new MessageType(name, [{ no: 1, name: "message", kind: "scalar", T: ScalarType.STRING }]);
const types = { I: message("grpc.examples.echo.EchoRequest"), O: message("grpc.examples.echo.EchoResponse") };
const echo = new ServiceType("grpc.examples.echo.Echo", [
  { name: "UnaryEcho", options: {}, ...types },
  { name: "ServerStreamingEcho", serverStreaming: true, options: {}, ...types },
  { name: "Unknown", options: {}, ...types },
]);
const [unaryEcho, serverStreamingEcho, unknown] = echo.methods;

for (const format of ["binary", "text"]) {
  const transport = new GrpcWebFetchTransport({ baseUrl, format });
  const options = (more) => transport.mergeOptions({ meta: { label: "first" }, ...more });
  const unary = (method, text) => transport.unary(method, { message: text }, options());
  const stream = (text, more) => transport.serverStreaming(serverStreamingEcho, { message: text }, options(more));
  const failure = (error) => ({
    code: error.code,
    message: decodeURIComponent(error.message),
    step: error.meta["failed-step"],
  });

  const call = await unary(unaryEcho, "hello ✓");
  const { server, label } = call.headers;
  const result = { format, unary: { message: call.response.message, server, label } };
  result.large = (await unary(unaryEcho, "large ".repeat(100_000))).response.message.length;
  result.failure = await unary(unaryEcho, "fail").then(() => "no error", failure);
  result.unknown = await unary(unknown, "").then(() => "no error", (error) => error.code);

  result.stream = [];
  for await (const reply of stream("a b c").responses) {
    result.stream.push(reply.message);
  }
  result.before_failure = [];
  try {
    for await (const reply of stream("a fail b").responses) {
      result.before_failure.push(reply.message);
    }
    result.stream_failure = "no error";
  } catch (error) {
    result.stream_failure = failure(error);
  }
  // The server never responds to the second word.
  result.partial = [];
  const controller = new AbortController();
  const waiting = stream("a wait", { abort: controller.signal });
  try {
    for await (const reply of waiting.responses) {
      result.partial.push(reply.message);
      controller.abort();
    }
  } catch (error) {
    if (error.code !== "CANCELLED") throw error;
  }
  await Promise.allSettled([waiting.headers, waiting.status, waiting.trailers]);
  console.log(JSON.stringify(result));
}
