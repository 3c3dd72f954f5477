// What the page asks of the run. The token is in a cookie that scripts cannot read.

export class Failed extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function read(response) {
  const text = await response.text();
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Failed(response.status, text);
  }
  if (!response.ok && !content.conflicts) throw new Failed(response.status, content.error ?? response.statusText);
  return content;
}

export async function get(path) {
  return read(await fetch(path));
}

export async function post(path, content) {
  return read(await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(content),
  }));
}
