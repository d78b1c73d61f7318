// What pages gain with scripts: live parts refresh by themselves, logs are followed. Everything works without.
"use strict";

// Parts that refresh: the page is fetched again and the part is taken from it.
function refresh(part) {
  const again = () => setTimeout(load, 1000 * Number(part.dataset.refresh || 5));
  async function load() {
    const busy = document.hidden || part.contains(document.activeElement) || String(getSelection()).length > 0;
    if (!busy) {
      try {
        const address = new URL(location.href);
        address.searchParams.delete("done");
        const answer = await fetch(address, { headers: { accept: "text/html" } });
        if (answer.redirected) { location.reload(); return; }
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById(part.id);
        if (answer.ok && fresh) {
          if (fresh.innerHTML !== part.innerHTML) part.innerHTML = fresh.innerHTML;
          part.dataset.refresh = fresh.dataset.refresh;
          const title = document.querySelector("main h1"), freshTitle = page.querySelector("main h1");
          if (title && freshTitle) title.innerHTML = freshTitle.innerHTML;
        }
      } catch { /* The next try is soon. */ }
    }
    again();
  }
  again();
}

// The log of an app, which is followed: lines of JSON.
async function follow(log) {
  const state = document.getElementById("log-state");
  const say = (text) => { if (state) state.textContent = text; };
  const asLine = (line) => {
    try {
      const entry = JSON.parse(line);
      const at = new Date(entry.at).toISOString().slice(0, 19).replace("T", " ");
      return `${at} ${entry.instance.slice(0, 8)}  ${entry.text}\n`;
    } catch { return ""; }
  };
  try {
    const answer = await fetch(log.dataset.log);
    if (!answer.ok || !answer.body) {
      const problem = await answer.json().catch(() => ({}));
      say(`not live: ${problem.detail || answer.status}`);
      return;
    }
    say("live");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let first = true, rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      let text = value;
      if (log.dataset.logKind === "lines") {
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        text = lines.map(asLine).join("");
      }
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (first) { log.textContent = ""; first = false; }
      log.append(text);
      while (log.childNodes.length > 5000) log.firstChild.remove();
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
    say("");
    if ("logReload" in log.dataset) location.reload();
  } catch {
    say("the connection ended");
    if ("logReload" in log.dataset) setTimeout(() => location.reload(), 3000);
  }
}

// The log of a build: events, which the browser takes up again by itself where the connection breaks.
function followBuild(log) {
  const state = document.getElementById("log-state");
  const source = new EventSource(log.dataset.build);
  let first = true;
  source.onmessage = (event) => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (first) { log.textContent = ""; first = false; }
    log.append(JSON.parse(event.data).text);
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  source.addEventListener("stage", (event) => { state.textContent = JSON.parse(event.data).stage; });
  source.addEventListener("end", () => {
    source.close();
    state.textContent = "";
    if ("logReload" in log.dataset) location.reload();
  });
  source.onerror = () => { state.textContent = source.readyState === EventSource.CLOSED ? "the connection ended" : "the connection is taken up again"; };
}

// An upload that shows how far it is, and whose form keeps its file where it is refused.
function upload(form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const state = form.querySelector("[data-upload-state]"), button = event.submitter;
    const label = button.textContent, begun = Date.now();
    const mb = (bytes) => (bytes / 1048576).toFixed(1);
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded, total }) => {
      const left = Math.ceil((total - loaded) * (Date.now() - begun) / 1000 / loaded);
      state.textContent = `${mb(loaded)} of ${mb(total)} MiB are sent, ${left} s left`;
    };
    request.upload.onload = () => { state.textContent = "All is sent; the package is being read."; };
    request.onerror = () => {
      state.textContent = "The upload broke off: try again, or load the page anew.";
      Object.assign(button, { disabled: false, textContent: label });
    };
    request.onload = () => {
      if (new URL(request.responseURL).pathname !== new URL(form.action).pathname) {
        location.assign(request.responseURL);
        return;
      }
      const page = new DOMParser().parseFromString(request.responseText, "text/html");
      const found = page.querySelector("form[data-upload]");
      if (!found) { document.body.innerHTML = page.body.innerHTML; return; }
      const section = document.importNode(found.closest("section"), true);
      section.querySelector("input[type=file]").replaceWith(form.querySelector("input[type=file]"));
      form.closest("section").replaceWith(section);
      upload(section.querySelector("form"));
    };
    request.open("POST", form.action);
    request.send(new FormData(form));
  });
  once(form);
}

// A second click must not send twice; the clicked button's value has been taken by now.
function once(form) {
  form.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button) setTimeout(() => { button.disabled = true; if (form.dataset.busy) button.textContent = form.dataset.busy; }, 0);
  });
}

document.querySelectorAll("[data-refresh]").forEach(refresh);
document.querySelectorAll("[data-log]").forEach((log) => { log.scrollTop = log.scrollHeight; follow(log); });
document.querySelectorAll("[data-build]").forEach((log) => { log.scrollTop = log.scrollHeight; followBuild(log); });
document.querySelectorAll("form").forEach((form) => ("upload" in form.dataset ? upload : once)(form));
addEventListener("pageshow", () => document.querySelectorAll("button:disabled").forEach((button) => { button.disabled = false; }));
