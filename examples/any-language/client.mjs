// user-service in Node.js (18 or newer): calls order-service through its own sidecar, without a package.

const SIDECAR = "http://127.0.0.1:15001";

async function call(service, method, input) {
  const answer = await fetch(`${SIDECAR}/v1/call/${service}/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(input),
    signal: AbortSignal.timeout(35_000),
  });
  const output = await answer.json().catch(() => null);
  if (answer.ok) return output;
  const code = answer.headers.get("x-mesh-error") ?? "application";
  const error = new Error(`${answer.status} ${code}: ${output?.error?.message ?? answer.statusText}`);
  throw Object.assign(error, { status: answer.status, code, requestId: answer.headers.get("x-request-id") });
}

console.log(await call("order-service", "getOrdersByUser", { user: "ada" }));
for (const [service, method] of [["order-service", "removeOrder"], ["oder-service", "getOrdersByUser"]]) {
  await call(service, method, { user: "ada" }).catch((error) => console.log(error.message));
}
